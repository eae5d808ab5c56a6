package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/test/lab/etcd"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

const disasterSeed = 12

// TestDisaster: every server is destroyed and installed anew, with two
// instances of one component; then the installer-vm is lost, too, and all that
// is left is one copied backup and the identity.
func TestDisaster(t *testing.T) {
	b := whole.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, disasterSeed, "small"))
	before := b.fingerprint()
	ref := b.backup("DISASTER", "-m", "yes")

	b.lose()
	b.recovered("DISASTER", before)

	// The copy lies elsewhere, as docs say: one backup's directory, and the identity.
	elsewhere := t.TempDir()
	copied := filepath.Join(elsewhere, "usb", ref)
	b.check(os.MkdirAll(copied, 0o700))
	b.check(os.CopyFS(copied, os.DirFS(b.path("backups", ref))))
	identity, err := os.ReadFile(b.path("state", "keys", "identity"))
	b.check(err)

	b.lose()
	for _, m := range []string{"worker", "temporald"} {
		b.check(b.Stop(ctx, m))
	}
	for _, dir := range []string{"backups", "state"} {
		b.check(empty(b.path(dir)))
	}
	b.check(os.MkdirAll(b.path("state", "keys"), 0o700))
	b.check(os.WriteFile(b.path("state", "keys", "identity"), identity, 0o600))
	b.want([]int{0}, "import", copied)
	for _, m := range []string{"temporald", "worker"} {
		b.check(b.StartMember(context.WithoutCancel(ctx), m))
	}
	b.client = b.dial(b.path("state", "pki"), b.value("LAB_TEMPORAL_ADDR"))
	b.recovered("DISASTER", before)
	b.backup("AFTERWARDS", "-m", "yes") // the new installation goes on with the old keys
	b.restored("-s", ref)
	b.equalButSwitch(before)
}

// lose destroys every server and every protected file; the servers are installed anew, empty.
func (b *bench) lose() {
	b.t.Helper()
	b.check(b.Reinstall(b.t.Context()))
	b.prior = "" // a new server has no maintenance switch
}

// recovered recovers the estate from a backup onto empty servers.
func (b *bench) recovered(name string, before print) {
	t := b.t
	t.Helper()
	var plan workflows.RestorePlan
	b.ask([]int{0, problem.Confirm.Exit()}, &plan, "-b", "restore", "-s", name, "-r", "yes", "--plan")
	var r workflows.Result
	b.ask(fine, &r, "-b", "restore", "-s", name, "-r", "yes", "--confirm", name)
	if r.Safety != "" {
		t.Errorf("a disaster recovery took a safety backup: %s", r.Safety)
	}
	for _, u := range r.Units {
		if u.Digest != "equal" {
			t.Errorf("%s: digest %q", u.Unit, u.Digest)
		}
	}
	b.settled()
	b.equalButSwitch(before)
	b.healthy()
	members, err := b.Members("etcd", "")
	b.check(err)
	refused, err := etcd.CheckLogins(t.Context(), members[0], disasterSeed) // a new cluster brings back the passwords, too
	b.check(err)
	if len(refused) > 0 {
		t.Errorf("users of etcd whose password is not back: %q", refused)
	}
	b.restored("-s", name) // and an ordinary restore finds nothing to do
	b.equalButSwitch(before)
}

// equalButSwitch is equal without the maintenance switch: it is no part of a
// backup, and a new cluster begins without one.
func (b *bench) equalButSwitch(want print) {
	b.t.Helper()
	counted := func(p print) string {
		var out strings.Builder
		for l := range strings.Lines(p.text) {
			kind, rest, _ := strings.Cut(l, "\t")
			if kind != "ephemeral" && !strings.HasPrefix(l, "fingerprint ") && !strings.HasPrefix(rest, "\"/lb/maintenance\"\t") {
				out.WriteString(l)
			}
		}
		return out.String()
	}
	if got := b.fingerprint(); counted(got) != counted(want) {
		b.t.Fatalf("the oracle finds a difference (-want +got):\n%s", different(counted(want), counted(got)))
	}
}

// empty removes what is in a directory, not the directory.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
