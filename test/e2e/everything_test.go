package e2e

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestEverything is one backup and one restore over every component there is,
// each in one command. It has servers of its own, because two of them take
// their time to start.
func TestEverything(t *testing.T) {
	l, err := lab.Start(context.Background(), lab.Options{Components: lab.DefaultComponents(), Out: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b := newBench(t, l)
	ctx := t.Context()
	b.check(b.Fill(ctx, 9, "small"))
	before := b.fingerprint()
	if len(before.sums) != len(lab.DefaultComponents()) {
		t.Fatalf("the oracle judges %d instances of %d", len(before.sums), len(lab.DefaultComponents()))
	}

	ref := b.backup("ALL", "-m", "yes")
	b.equal(before) // a backup changes nothing

	var again workflows.Result
	b.ask(fine, &again, "-b", "backup", "-s", "AGAIN")
	b.settled()
	var units []string
	for _, u := range again.Units {
		units = append(units, u.Unit)
		// A snapshot's own description, an SSTable of the server's own: some files are new with every backup.
		const little = 128 << 10
		// Not the etcd that holds the switch: every run writes it.
		if u.Unit != "etcd" && u.New > max(u.Stored/50, little) {
			t.Errorf("%s: %d of %d bytes are new in a second backup of unchanged data", u.Unit, u.New, u.Stored)
		}
	}
	for _, c := range lab.DefaultComponents() {
		if !slices.ContainsFunc(units, func(u string) bool { return strings.HasPrefix(u, c) }) {
			t.Errorf("the backup has no unit of %s: %q", c, units)
		}
	}

	b.check(b.Wreck(ctx, 9))
	wrecked := b.fingerprint()
	for name, sum := range before.sums {
		if wrecked.sums[name] == sum {
			t.Fatalf("%s was not wrecked: the comparison would prove nothing", name)
		}
	}

	r := b.restored("-s", "ALL")
	same(t, "backup", ref, r.Backup)
	b.equal(before)
}
