package plugintest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func (s *suite) describes(t *testing.T) {
	a, b := s.Plugin.Info(), s.Plugin.Info()
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("Info is not always the same: %s", d)
	}
	if _, ok := plugins.Lookup(a.Component); !ok || a.Product == "" || a.Versions == "" {
		t.Errorf("Info is not complete: %+v", a)
	}
	if a.Scope != plugins.ScopeCluster && a.Scope != plugins.ScopeNode {
		t.Errorf("scope %q is none", a.Scope)
	}
	for _, i := range a.Inexact {
		if i.What == "" || i.Why == "" {
			t.Errorf("inexact without name or reason: %+v", i)
		}
	}
	_ = s.with(t, s.Target, func(ses plugins.Session) error {
		h, err := ses.Health(t.Context())
		if err != nil {
			t.Fatalf("health: %v", err)
		}
		if h.Grade == plugins.Red || h.Version == "" || h.Members < 1 || h.Empty || h.Estimate <= 0 {
			t.Errorf("health of a filled instance: %+v", h)
		}
		run := s.run(t, plugins.OpInspect)
		for _, hook := range []func(context.Context, plugins.Run) error{ses.PostHook, ses.PreHook, ses.PostHook, ses.PostHook} {
			if err := hook(t.Context(), run); err != nil {
				t.Errorf("hook: %v", err)
			}
		}
		return nil
	})
	bad := s.Target
	bad.Member = "no-such-member"
	if ses, err := s.Plugin.Open(t.Context(), bad); err == nil {
		ses.Close()
		t.Error("a target with an unknown member was opened")
	}
}

// digestsOf are the comparable digests of a backup.
func digestsOf(m *Memory) map[string]string {
	out := map[string]string{}
	for _, a := range m.Artifacts() {
		if !a.Volatile {
			out[a.Name] = a.Digest.String()
		}
	}
	return out
}

func (s *suite) repeatable(t *testing.T) {
	again := NewMemory().After(s.backup)
	rep, err := s.backUp(t, t.Context(), s.Target, again)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(digestsOf(s.backup), digestsOf(again)); d != "" {
		t.Errorf("unchanged data gave another backup: %s", d)
	}
	if rep.Consistency == "" || rep.ServerVersion == "" {
		t.Errorf("report is not complete: %+v", rep)
	}
	pins := map[string]bool{}
	for _, a := range again.Artifacts() {
		pins[a.Pin] = true
	}
	if len(pins) != 1 {
		t.Errorf("one backup mixes %d pins", len(pins))
	}
}

func (s *suite) roundTrip(t *testing.T) {
	s.Wreck(t, s.Target, s.seed+1)
	if s.Fingerprint(t, s.Target) == s.print {
		t.Fatal("wreck changed nothing: the harness proves nothing")
	}
	run := s.run(t, plugins.OpRestore)
	if d := s.compare(t, s.Target, run, s.backup); len(d) == 0 {
		t.Error("Compare finds no difference in wrecked data")
	}
	rep := s.mustRestore(t, s.Target, run, s.backup, s.print)
	if rep.Artifacts+rep.Removed == 0 {
		t.Errorf("report of a restore that changed much: %+v", rep)
	}
	_ = s.with(t, s.Target, func(ses plugins.Session) error {
		live, err := ses.Digest(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.backup.Artifacts() {
			if !a.Volatile && live[a.Name] != a.Digest {
				t.Errorf("artifact %q: digest %s live, %s stored", a.Name, live[a.Name], a.Digest)
			}
		}
		return nil
	})
}

// accountsApart: after Restore alone only the accounts differ; after RestoreAccounts all is equal.
func (s *suite) accountsApart(t *testing.T) {
	ses, err := s.Plugin.Open(t.Context(), s.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	as, ok := ses.(plugins.AccountSwitcher)
	if !ok {
		notRun(t, "the session is no AccountSwitcher")
		return
	}
	s.Wreck(t, s.Target, s.seed+9)
	run := s.run(t, plugins.OpRestore)
	if _, err := ses.Restore(t.Context(), run, s.backup); err != nil {
		t.Fatal(err)
	}
	var data, accounts []plugins.Difference
	for _, d := range s.compare(t, s.Target, run, s.backup) {
		if as.AccountArtifact(d.Artifact) {
			accounts = append(accounts, d)
		} else {
			data = append(data, d)
		}
	}
	if len(data) > 0 {
		t.Errorf("between Restore and RestoreAccounts: %+v", data)
	}
	only := run
	only.AccountsOnly = true
	got := slices.DeleteFunc(s.compare(t, s.Target, only, s.backup), func(d plugins.Difference) bool { return !as.AccountArtifact(d.Artifact) })
	if d := cmp.Diff(accounts, got); d != "" {
		t.Errorf("differences of the accounts alone: %s", d)
	}
	if _, err := as.RestoreAccounts(t.Context(), run, s.backup); err != nil {
		t.Fatal(err)
	}
	s.mustEqual(t, s.Target, run, s.backup, s.print)
}

// told: a restore that knows from a safety backup what the live data is ends like one that reads it.
func (s *suite) told(t *testing.T) {
	s.Wreck(t, s.Target, s.seed+17)
	run := s.run(t, plugins.OpRestore)
	run.Live = s.mustBackup(t, s.Target)
	s.mustRestore(t, s.Target, run, s.backup, s.print)
}

func (s *suite) plan(t *testing.T) {
	ses, err := s.Plugin.Open(t.Context(), s.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	p, ok := ses.(plugins.Planner)
	if !ok {
		notRun(t, "the session is no Planner")
		return
	}
	s.Wreck(t, s.Target, s.seed+2)
	before := s.Fingerprint(t, s.Target)
	run := s.run(t, plugins.OpInspect)
	pl, err := p.Plan(t.Context(), run, s.backup)
	if err != nil {
		t.Fatal(err)
	}
	if len(pl.Change)+len(pl.Add)+len(pl.Remove) == 0 || len(pl.Refusals) > 0 {
		t.Errorf("plan over wrecked data: %+v", pl)
	}
	sameText(t, "fingerprint after a plan", before, s.Fingerprint(t, s.Target))
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	if pl, err = p.Plan(t.Context(), run, s.backup); err != nil || len(pl.Change)+len(pl.Add)+len(pl.Remove) > 0 {
		t.Errorf("plan over restored data: %+v, %v", pl, err)
	}
}

func (s *suite) dirty(t *testing.T) {
	s.Fill(t, s.Target, s.seed+100)
	s.Wreck(t, s.Target, s.seed+3)
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
}

func (s *suite) second(t *testing.T) {
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	pos := s.position(t)
	rep := s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	if rep.Artifacts != 0 || rep.Removed != 0 {
		t.Errorf("a second restore changed %d artifacts and removed %d", rep.Artifacts, rep.Removed)
	}
	if now := s.position(t); now != pos {
		t.Errorf("a second restore moved the position from %s to %s", pos, now)
	}
}

func (s *suite) position(t testing.TB) string {
	if s.Position == nil {
		return ""
	}
	return s.Position(t, s.Target)
}

func (s *suite) empty(t *testing.T) {
	s.Clear(t, s.Target)
	want := s.Fingerprint(t, s.Target)
	_ = s.with(t, s.Target, func(ses plugins.Session) error {
		if h, err := ses.Health(t.Context()); err != nil || !h.Empty {
			t.Errorf("health of an empty instance: %+v, %v", h, err)
		}
		return nil
	})
	m := s.mustBackup(t, s.Target)
	s.Fill(t, s.Target, s.seed+4)
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), m, want)
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
}

func (s *suite) twoInstances(t *testing.T) {
	if s.Second == nil {
		notRun(t, "the harness has one instance")
		return
	}
	s.Fill(t, *s.Second, s.seed+5)
	other := s.Fingerprint(t, *s.Second)
	m := s.mustBackup(t, *s.Second)
	s.Wreck(t, s.Target, s.seed+6)
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
	sameText(t, "fingerprint of the other instance", other, s.Fingerprint(t, *s.Second))
	s.Wreck(t, *s.Second, s.seed+7)
	s.mustRestore(t, *s.Second, s.run(t, plugins.OpRestore), m, other)
	sameText(t, "fingerprint of the first instance", s.print, s.Fingerprint(t, s.Target))
}

func (s *suite) fence(t *testing.T) {
	ses, err := s.Plugin.Open(t.Context(), s.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	f, ok := ses.(plugins.Fencer)
	if !ok {
		notRun(t, "the session is no Fencer")
		return
	}
	if s.TryWrite == nil {
		t.Fatal("the session is a Fencer: the harness needs TryWrite")
	}
	run := s.run(t, plugins.OpRestore)
	if err := f.Fence(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	if s.TryWrite(s.Target) == nil {
		t.Error("a fenced database took a foreign write")
	}
	s.mustRestore(t, s.Target, run, s.backup, s.print)
	for range 2 {
		if err := f.Unfence(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.TryWrite(s.Target); err != nil {
		t.Errorf("after Unfence: %v", err)
	}
	s.mustRestore(t, s.Target, s.run(t, plugins.OpRestore), s.backup, s.print)
}

func (s *suite) switches(t *testing.T) {
	ses, err := s.Plugin.Open(t.Context(), s.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.Close()
	sw, ok := ses.(plugins.Switch)
	if !ok {
		notRun(t, "the session holds no maintenance switch")
		return
	}
	prior, err := sw.ReadSwitch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range []plugins.SwitchState{plugins.SwitchOn, {Present: true, Value: "false"}, {Present: true}, {}, {}, plugins.SwitchOn} {
		if err := sw.WriteSwitch(t.Context(), st); err != nil {
			t.Fatal(err)
		}
		if got, err := sw.ReadSwitch(t.Context()); err != nil || got != st {
			t.Fatalf("switch %+v, %v: want %+v", got, err, st)
		}
	}
	// The switch is on: it must be in no backup, and no restore may turn it off.
	m := s.mustBackup(t, s.Target)
	if d := cmp.Diff(digestsOf(s.backup), digestsOf(m)); d != "" {
		t.Errorf("the switch is seen by the backup: %s", strings.TrimSpace(d))
	}
	s.Wreck(t, s.Target, s.seed+8)
	run := s.run(t, plugins.OpRestore)
	if _, err := s.restore(t, t.Context(), s.Target, run, s.backup); err != nil {
		t.Fatal(err)
	}
	if got, err := sw.ReadSwitch(t.Context()); err != nil || !got.On() {
		t.Errorf("a restore changed the switch to %+v, %v", got, err)
	}
	if err := sw.WriteSwitch(t.Context(), prior); err != nil {
		t.Fatal(err)
	}
	s.mustEqual(t, s.Target, run, s.backup, s.print)
}
