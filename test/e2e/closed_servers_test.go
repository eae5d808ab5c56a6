//go:build hostile

package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestSickServers: a dead server and a wrong password are told as what they
// are, before anything is touched, and Ctrl-C lets go of a run without ending it.
func TestSickServers(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 71, "small"))
	b.backup("WELL")
	good := b.fingerprint()

	refused := func(t *testing.T, what string, args ...string) {
		t.Helper()
		b := b.of(t)
		d := b.ask([]int{problem.Unhealthy.Exit()}, nil, args...)
		if d.Error == nil || d.Error.Code != problem.Unhealthy || d.Error.Hint == "" || !strings.Contains(d.Error.Message, what) {
			t.Errorf("%v: %+v", args, d.Error)
		}
		if s := b.journal(); s.Open() {
			t.Errorf("%v: a run is open", args)
		}
	}
	t.Run("wrong password", func(t *testing.T) {
		b := b.of(t)
		members, err := b.Members("etcd", "")
		b.check(err)
		_, options, err := b.Target(members[0].Name)
		b.check(err)
		file := options["password_file"]
		right, err := os.ReadFile(file)
		b.check(err)
		b.check(os.WriteFile(file, []byte("geheim-aber-falsch"), 0o600))
		defer func() { b.check(os.WriteFile(file, right, 0o600)) }()
		refused(t, "etcd", "-b", "backup", "-s", "WRONG")
		refused(t, "etcd", "-b", "restore", "-s", "WELL")
		e := b.want([]int{problem.Unhealthy.Exit()}, "-b", "healthcheck")
		if strings.Contains(e.stdout+e.stderr, "geheim") || !strings.Contains(e.stdout, "etcd") && !strings.Contains(e.stdout, "Etcd") {
			t.Errorf("healthcheck:\n%s%s", e.stdout, e.stderr)
		}
	})
	t.Run("dead server", func(t *testing.T) {
		b := b.of(t)
		b.check(b.Kill(ctx, "etcd-1"))
		refused(t, "etcd", "-b", "backup", "-s", "DEAD")
		refused(t, "etcd", "-b", "restore", "-s", "WELL")
		b.want([]int{problem.Unhealthy.Exit()}, "-b", "healthcheck")
		b.check(b.StartMember(ctx, "etcd-1"))
		b.settled()
		b.equal(good)
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		b := b.of(t)
		d := b.closeDoor()
		run := b.start("-b", "backup", "-s", "LETGO", "-m", "yes")
		d.await()
		b.check(run.cmd.Process.Signal(syscall.SIGINT))
		e := b.expect(run.wait(), problem.Detached.Exit())
		for _, want := range []string{"attach", "cancel"} {
			if !strings.Contains(e.stderr, want) {
				t.Errorf("it does not say how to %s:\n%s", want, e.stderr)
			}
		}
		attached := b.start("attach", "-o", "json")
		d.open()
		var r workflows.Result
		b.read(b.expect(attached.wait(), fine...), &r)
		if !strings.HasPrefix(r.Backup, "LETGO/") {
			t.Errorf("attached to %+v", r)
		}
		b.settled()
		b.equal(good)
	})
}
