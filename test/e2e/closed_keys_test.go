package e2e

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestKeys: identity and recipients change, backups before and after the
// change are restored by the identity that is theirs, and by no other.
func TestKeys(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 31, "small"))
	good := b.fingerprint()
	before := b.backup("BEFORE")
	at := b.path("state", "keys", "identity")
	old, err := os.ReadFile(at)
	b.check(err)
	restore := func(content []byte) {
		b.check(os.WriteFile(at+".new", content, 0o600))
		b.check(os.Rename(at+".new", at))
	}

	var rotated struct {
		Recipients  []string
		NewIdentity bool
	}
	b.ask(fine, &rotated, "setup", "--rotate")
	if !rotated.NewIdentity || len(rotated.Recipients) != 1 {
		t.Fatalf("%+v", rotated)
	}
	both, err := os.ReadFile(at)
	b.check(err)
	defer restore(both)
	if !bytes.HasSuffix(both, old) {
		t.Fatal("the old identity is gone")
	}
	alone := bytes.TrimSuffix(both, old)

	var r workflows.Result
	b.ask(fine, &r, "-b", "backup", "-s", "AFTER")
	if r.New != r.Stored || r.New == 0 {
		t.Errorf("unchanged data for new recipients: %d of %d bytes are new", r.New, r.Stored)
	}
	restore(alone)
	b.check(b.Wreck(ctx, 31))
	now := b.fingerprint()
	refused := func(what string) {
		t.Helper()
		epoch := b.journal().Claim.Epoch
		d := b.ask([]int{problem.Key.Exit()}, nil, "-b", "restore", "-s", before)
		if d.Error == nil || d.Error.Code != problem.Key || d.Error.Hint == "" {
			t.Errorf("%s: %+v", what, d.Error)
		}
		same(t, what+": epoch, which only a fenced run raises", epoch, b.journal().Claim.Epoch)
		b.settled()
		b.equal(now)
	}
	refused("the new identity for an old backup")
	b.restored("-s", "AFTER")
	b.equal(good)

	b.check(b.Wreck(ctx, 32))
	now = b.fingerprint()
	stranger, err := age.GenerateX25519Identity()
	b.check(err)
	restore([]byte(stranger.String() + "\n"))
	refused("another installation's identity")
	restore([]byte("AGE-SECRET-KEY-1DAMAGED\n"))
	refused("a damaged identity")
	restore(nil)
	refused("an empty identity")
	restore(both)
	b.restored("-s", before)
	b.equal(good)

	// The operator is told that the copy of the new identity is missing, until it is shown.
	e := b.want([]int{problem.Warnings.Exit()}, "doctor")
	if !strings.Contains(e.stdout, "confirm-key") {
		t.Errorf("doctor does not ask for the copy:\n%s", e.stdout)
	}
	copied := b.path("copy-of-identity")
	b.check(os.WriteFile(copied, alone, 0o600))
	b.want(fine, "setup", "--confirm-key", copied)
	if e := b.cso("doctor"); strings.Contains(e.stdout, "confirm-key") {
		t.Errorf("the copy was shown, and doctor asks for it again:\n%s", e.stdout)
	}

	// While a run is going on its keys stay.
	d := b.closeDoor()
	run := b.start("-b", "backup", "-s", "MIDDLE", "-m", "yes", "-o", "json")
	d.await()
	for _, args := range [][]string{{"setup", "--rotate"}, {"setup", "--add-recipient", stranger.Recipient().String()}} {
		if d := b.ask([]int{problem.Busy.Exit()}, nil, args...); d.Error == nil || d.Error.Code != problem.Busy {
			t.Errorf("%v: %+v", args, d.Error)
		}
	}
	d.open()
	b.read(b.expect(run.wait(), fine...), nil)

	// A second recipient, held elsewhere, opens what is made from then on.
	b.ask(fine, &rotated, "setup", "--add-recipient", stranger.Recipient().String())
	if !slices.Contains(rotated.Recipients, stranger.Recipient().String()) {
		t.Errorf("%+v", rotated)
	}
	b.backup("ESCROW")
	b.check(b.Wreck(ctx, 33))
	restore([]byte(stranger.String() + "\n"))
	b.restored("-s", "ESCROW")
	b.equal(good)
	restore(both)
	b.ask(fine, &rotated, "setup", "--remove-recipient", stranger.Recipient().String())
}
