package elasticsearch_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// apart is the same instance as seen from a VM that does not reach path.repo.
func apart(on plugins.Target) plugins.Target {
	on.Members = slices.Clone(on.Members)
	for i, m := range on.Members {
		opts := map[string]string{"repo_dir": "/nonexistent/cso"}
		for k, v := range m.Options {
			if k != "repo_dir" {
				opts[k] = v
			}
		}
		on.Members[i].Options = opts
	}
	return on
}

// exported: without a directory that all nodes share, documents are exported one by one.
func (s *stand) exported(t *testing.T) {
	on := apart(s.on)
	t.Run("refuses what it cannot carry", func(t *testing.T) {
		a := client(t, s.on)
		a.fill(5)
		ses := open(t, on)
		_, err := ses.Backup(t.Context(), run(t, plugins.OpBackup), nil)
		if !errors.Is(err, plugins.ErrData) {
			t.Fatalf("%v, want ErrData", err)
		}
		names := []string{"nosource: it stores no _source", "excludes: its _source leaves out secret", "closed: it is closed"}
		if a.streams() {
			names = append(names, "logs-app: it is a data stream")
		}
		for _, n := range names {
			if !strings.Contains(err.Error(), n) {
				t.Errorf("%q does not name %q", err, n)
			}
		}
		h, err := ses.Health(t.Context())
		if must(t, err); h.Grade != plugins.Amber || !strings.Contains(strings.Join(h.Reasons, "; "), "no usable path.repo") {
			t.Errorf("health %+v", h)
		}
		m, _ := backup(t, open(t, s.on))
		a.do("DELETE", "/devices", nil)
		want := a.fingerprint()
		if _, err := ses.Restore(t.Context(), run(t, plugins.OpRestore), m); !errors.Is(err, plugins.ErrConfig) {
			t.Errorf("a snapshot without path.repo: %v, want ErrConfig", err)
		}
		same(t, want, a.fingerprint())
	})
	t.Run("round trip", func(t *testing.T) { s.exportTrip(t, on) })
	if long() {
		t.Run("suite", func(t *testing.T) { s.conformance(t, on, nil, true) })
	}
}

// exportTrip exports, wrecks and restores.
func (s *stand) exportTrip(t *testing.T, on plugins.Target) {
	a := client(t, s.on)
	a.plain = true
	a.fill(6)
	a.do("PUT", "/devices/_doc/multi%2Fline?routing=%C3%A4%20%2B", "{ \"n\" :\n 5,\r\n \"name\":\"z\"}")
	a.do("PUT", "/devices/_doc/quote%22%5C?refresh=true", `{"n":6}`)
	ses := open(t, on)
	m, rep := backup(t, ses)
	if !strings.Contains(rep.Consistency, "exported one by one") || len(rep.Inexact) == 0 {
		t.Errorf("the report does not say what was done: %+v", rep)
	}
	want := a.fingerprint()
	a.wreck(6)
	a.do("PUT", "/empty/_doc/1?refresh=true", `{"n":1}`)
	restore(t, ses, m)
	same(t, want, a.fingerprint())
	if rep := restore(t, ses, m); rep.Artifacts != 0 || rep.Removed != 0 {
		t.Errorf("a second restore: %+v", rep)
	}
	a.clear()
	restore(t, open(t, s.on), m) // also where there is a path.repo
	same(t, want, a.fingerprint())
}
