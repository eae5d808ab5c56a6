package ui

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// Bytes is a size in IEC units: "3.1 GiB". Below zero (unknown) it is "-".
func Bytes(n int64) string {
	if n < 0 {
		return "-"
	}
	return humanize.IBytes(uint64(n))
}

// Share is a part of a size in the unit of the whole: "1.3/3.0 GiB".
func Share(done, total int64) string {
	unit, names := int64(1), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for total/unit >= 1024 && i < len(names)-1 {
		unit, i = unit*1024, i+1
	}
	num := func(n int64) string {
		v := float64(n) / float64(unit)
		if v < 9.95 && unit > 1 {
			return fmt.Sprintf("%.1f", v)
		}
		return fmt.Sprintf("%.0f", v)
	}
	return num(done) + "/" + num(total) + " " + names[i]
}

// Rate is bytes per second.
func Rate(perSecond float64) string {
	if perSecond <= 0 {
		return ""
	}
	return Bytes(int64(perSecond)) + "/s"
}

// Count is a number with thousands separated: "12,345".
func Count(n int64) string { return humanize.Comma(n) }

// Took is a duration as people say it: "42ms", "0.4s", "36s", "2m31s", "3h05m".
func Took(d time.Duration) string {
	switch {
	case d < 0:
		return "-"
	case d > 0 && d < 100*time.Millisecond:
		return fmt.Sprintf("%dms", max(1, d.Milliseconds()))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Clock is a remaining time: "0:15", "1:02:03".
func Clock(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// Ago is an age in a sentence: "just now", "3d ago".
func Ago(d time.Duration) string {
	if a := Age(d); a != "now" {
		return a + " ago"
	}
	return "just now"
}

// Age is a coarse duration: "now", "4m", "3h", "12d", "2y".
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "future"
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 2*365*24*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
	return fmt.Sprintf("%dy", int(d.Hours()/24/365))
}

// Plural is "1 unit" or "3 units".
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if one[len(one)-1] == 'y' {
		return Count(int64(n)) + " " + one[:len(one)-1] + "ies"
	}
	return Count(int64(n)) + " " + one + "s"
}
