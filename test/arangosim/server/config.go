// Package server is a simulated ArangoDB: one process that answers the HTTP
// API of 3.8, 3.11 or 3.12 as far as backup and restore can see it, as a single
// server or as a cluster of coordinators, DB servers and agents, each with a
// listener of its own. It is a test instrument. What it does follows the
// vendor's documentation and, for the undocumented dump and restore endpoints,
// the vendor's server source; the vendor's driver tests judge it.
package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config chooses what the simulator is.
type Config struct {
	Dir          string        // where the database file lives
	Mode         string        // "single" or "cluster"
	Version      string        // "3.8.9", "3.11.14", "3.12.6" … (3.8, 3.11 and 3.12 are completed)
	License      string        // "community" or "enterprise"
	Password     string        // of root; empty with Auth means an empty password
	Auth         bool          // demand basic or JWT authentication
	Listen       string        // address of the single server or first coordinator; ":0" picks a port
	Coordinators int           // cluster: 1 to 3
	ListenMore   []string      // cluster: addresses of the further coordinators; missing ones pick a port
	Apart        bool          // cluster: each further coordinator lives as long as a process that attaches to it (see control.go)
	TTLInterval  time.Duration // how often ttl indexes are swept; the real server's default is 30 s
	Resync       time.Duration // how long a returned DB server takes to be in sync again
}

// latest releases completed from "3.12" and the like.
var latest = map[string]string{"3.8": "3.8.9", "3.11": "3.11.14", "3.12": "3.12.6", "": "3.12.6"}

func (c Config) complete() (Config, error) {
	if full, ok := latest[c.Version]; ok {
		c.Version = full
	}
	if c.Mode == "" {
		c.Mode = "single"
	}
	if c.License == "" {
		c.License = "community"
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Coordinators == 0 {
		c.Coordinators = 1
	}
	if c.TTLInterval == 0 {
		c.TTLInterval = time.Second
	}
	if c.Resync == 0 {
		c.Resync = 300 * time.Millisecond
	}
	switch {
	case c.Mode != "single" && c.Mode != "cluster":
		return c, fmt.Errorf("mode %q: use single or cluster", c.Mode)
	case !slices.Contains([]string{"community", "enterprise"}, c.License):
		return c, fmt.Errorf("license %q: use community or enterprise", c.License)
	case c.Coordinators < 1 || c.Coordinators > 3:
		return c, fmt.Errorf("%d coordinators: use 1 to 3", c.Coordinators)
	case c.Dir == "":
		return c, errors.New("no directory: name the one that holds the database file")
	}
	if _, err := parseVersion(c.Version); err != nil {
		return c, err
	}
	return c, nil
}

func parseVersion(s string) ([3]int, error) {
	var v [3]int
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return v, fmt.Errorf("version %q: use MAJOR.MINOR.PATCH", s)
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return v, fmt.Errorf("version %q: use MAJOR.MINOR.PATCH", s)
		}
		v[i] = n
	}
	return v, nil
}

// atLeast tells whether the simulated version is this one or later.
func (s *Server) atLeast(major, minor, patch int) bool {
	v, _ := parseVersion(s.cfg.Version)
	return slices.Compare(v[:], []int{major, minor, patch}) >= 0
}

func (s *Server) isCluster() bool { return s.cfg.Mode == "cluster" }

// features says whether what was Enterprise is there: with that licence, and in Community from 3.12.5 on.
func (s *Server) features() bool { return s.cfg.License == "enterprise" || s.atLeast(3, 12, 5) }
