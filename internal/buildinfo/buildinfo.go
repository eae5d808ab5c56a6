// Package buildinfo knows the version of this program.
package buildinfo

import "runtime/debug"

// version is set by the build (-ldflags -X); a plain `go build` has the commit instead.
var version string

// Version is the release, or "dev" with the commit it was built from.
func Version() string {
	if version != "" {
		return version
	}
	out := "dev"
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				out += "-" + s.Value[:12]
			}
		}
	}
	return out
}
