package schedule

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Zone finds this host's time zone by name: TZ, the target of /etc/localtime
// (localtime(5)), or /etc/timezone; UTC when none of them exists. Schedules
// need the name, because the server evaluates them.
func Zone(getenv func(string) string) (*time.Location, error) {
	return zone(getenv, "/etc")
}

func zone(getenv func(string) string, etc string) (*time.Location, error) {
	n := strings.TrimPrefix(getenv("TZ"), ":")
	if n == "" {
		n = fromFiles(etc)
	}
	l, err := time.LoadLocation(n)
	if err != nil || n == "Local" {
		return nil, fmt.Errorf("time zone %q of this host is not known by name: set it with `timedatectl set-timezone Area/City`", n)
	}
	return l, nil
}

func fromFiles(etc string) string {
	link := filepath.Join(etc, "localtime")
	if p, err := filepath.EvalSymlinks(link); err == nil {
		if _, n, ok := strings.Cut(p, "/zoneinfo/"); ok {
			return n
		}
	}
	if b, err := os.ReadFile(filepath.Join(etc, "timezone")); err == nil {
		return strings.TrimSpace(string(b))
	}
	if _, err := os.Stat(link); err == nil {
		return "Local" // a copy of zone data, whose name is lost
	}
	return "UTC"
}
