package e2e

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"
)

// door makes a run stand still while it enters maintenance: the operator's own
// program, which the estate file names for that moment, waits behind it.
type door struct {
	b        *bench
	before   []byte // the estate file without the hook
	reached  string
	released string
}

// closeDoor writes the hook into the estate file.
func (b *bench) closeDoor() *door {
	b.t.Helper()
	d := &door{b: b, reached: b.path("door-reached"), released: b.path("door-released")}
	for _, p := range []string{d.reached, d.released} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.t.Fatal(err)
		}
	}
	program := b.path("door")
	b.check(os.WriteFile(program, []byte("#!/bin/sh\n: > '"+d.reached+"'\nwhile [ ! -e '"+d.released+"' ]; do sleep 0.05; done\n"), 0o700))
	var err error
	d.before, err = os.ReadFile(b.path("estate.yaml"))
	b.check(err)
	with := strings.Replace(string(d.before), "settings:\n", "settings:\n    hooks:\n        enter_maintenance: ["+program+"]\n", 1)
	if with == string(d.before) {
		b.t.Fatalf("the lab's estate file has no settings:\n%s", with)
	}
	b.check(os.WriteFile(b.path("estate.yaml"), []byte(with), 0o600))
	b.t.Cleanup(d.open)
	return d
}

// await returns when a run stands before the door.
func (d *door) await() {
	d.b.t.Helper()
	d.b.eventually(30*time.Second, "a run enters maintenance", func() bool { _, err := os.Lstat(d.reached); return err == nil })
}

// open lets the run go on, and takes the hook out of the estate file.
func (d *door) open() {
	d.b.t.Helper()
	d.b.check(os.WriteFile(d.released, nil, 0o600))
	d.b.check(os.WriteFile(d.b.path("estate.yaml"), d.before, 0o600))
}

// strike stops the worker in the very moment in which hit is true, and fails
// when it came too late. The moment then stands still until the worker is
// thawed or killed.
func (b *bench) strike(r *running, what string, hit func(moment) bool) moment {
	b.t.Helper()
	since := time.Now()
	for end := since.Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if m, ok := b.moment(); ok && hit(m) {
			break
		}
		if r.over() || time.Now().After(end) {
			b.t.Fatalf("the run ended, or 90 s passed, before: %s\n%s\n%s", what, r.out.String(), r.err.String())
		}
	}
	b.check(b.Freeze(b.t.Context(), "worker"))
	b.t.Cleanup(func() {
		if b.t.Failed() {
			_ = b.Thaw(context.Background(), "worker") // for the tests after this one
		}
	})
	m, ok := b.moment()
	if !ok || !hit(m) {
		b.t.Fatalf("the blow came too late for: %s", what)
	}
	b.t.Logf("struck while %v run; journal: phase %s, written %v", m.activities, m.journal.Phase, m.journal.Written)
	return m
}
