package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// coordinators is a cluster of three coordinators, each a process of its own. It is simulated.
var coordinators = &shared{components: []string{"arangodb", "etcd", "secrets"}, members: 3}

// TestSimulatedArangoDB: one of three coordinators is dead, the password is wrong, all are dead: what an operator is told, with which exit
// status, and that backup and restore go on while one coordinator lives.
func TestSimulatedArangoDB(t *testing.T) {
	b := coordinators.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 61, "small"))
	before := b.fingerprint()
	b.backup("ALL")

	b.check(b.Kill(ctx, "arangodb-2"))
	if grade, why := b.sick("arangodb"); grade != "AMBER" || !strings.Contains(why, "Coordinator0002") {
		t.Errorf("one coordinator dead: %s, %q", grade, why)
	}
	var r struct{ Backup string }
	b.ask([]int{problem.Warnings.Exit()}, &r, "-b", "backup", "-s", "TWO")
	b.settled()
	text, err := os.ReadFile(b.path("backups", r.Backup, "manifest.json"))
	b.check(err)
	if !strings.Contains(string(text), "one moment of the whole cluster") {
		t.Errorf("the manifest does not say that two living coordinators were held: %s", text)
	}
	b.check(b.Wreck(ctx, 62))
	b.ask([]int{problem.Warnings.Exit()}, nil, "-b", "restore", "-s", "TWO")
	b.settled()
	b.equal(before)
	b.check(b.StartMember(ctx, "arangodb-2"))
	b.equal(before)
	var again struct {
		Units    []struct{ Artifacts int }
		Warnings []string
	}
	b.ask(fine, &again, "-b", "restore", "-s", "ALL", "-t", "arangodb")
	b.settled()
	if len(again.Units) != 1 || again.Units[0].Artifacts != 0 || strings.Contains(strings.Join(again.Warnings, " "), "Coordinator") {
		t.Errorf("a second restore, of the same content: %+v", again)
	}
	if grade, why := b.sick("arangodb"); grade != "GREEN" {
		t.Errorf("all coordinators live: %s, %q", grade, why)
	}

	refused := func(what, reason string) {
		t.Helper()
		if grade, why := b.sick("arangodb"); grade != "RED" || !strings.Contains(why, reason) {
			t.Errorf("%s: %s, %q", what, grade, why)
		}
		if d := b.ask([]int{problem.Unhealthy.Exit()}, nil, "-b", "backup", "-s", "NONE"); d.Error == nil || !strings.Contains(d.Error.Message, reason) {
			t.Errorf("%s: backup: %+v", what, d.Error)
		}
		b.settled()
	}
	password := b.path("arangodb-1", "root.password")
	right, err := os.ReadFile(password)
	b.check(err)
	b.check(os.WriteFile(password, []byte("wr0ng"), 0o600))
	refused("wrong password", "user root needs the right password")
	b.check(os.WriteFile(password, right, 0o600))
	b.check(b.Kill(ctx, "arangodb-1")) // the DB servers' process
	refused("nothing answers", "not reachable")
	b.check(b.StartMember(ctx, "arangodb-1"))
	b.equal(before)
}
