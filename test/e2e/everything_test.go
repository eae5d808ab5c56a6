package e2e

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	labcassandra "github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
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
	b.check(prepareDrain(l, "10s"))
	b.check(b.Fill(ctx, 9, "small"))

	// Beside the backup one writer stores the same transactions in all databases, and drains for maintenance.
	b.ledgerNumber() // makes its pages
	empty := b.fingerprint()
	var ref string
	n := b.besideLedger(func() { ref = b.backup("ALL", "-m", "yes") })
	if n.Last == n.First || n.Paused == 0 {
		t.Fatalf("the ledger's writer was not beside the backup: %+v", n)
	}
	before := b.fingerprint()
	if d := different(empty.withoutLedger(), before.withoutLedger()); d != "" {
		t.Fatalf("a backup has changed the estate (-want +got):\n%s", d)
	}
	if len(before.sums) != len(lab.DefaultComponents()) {
		t.Fatalf("the oracle judges %d instances of %d", len(before.sums), len(lab.DefaultComponents()))
	}

	b.backup("QUIET") // the ledger went on after the pin
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

	stop := b.writesRefused()
	r := b.restored("-s", "ALL")
	stop()
	same(t, "backup", ref, r.Backup)
	restored := b.fingerprint()
	if d := different(before.withoutLedger(), restored.withoutLedger()); d != "" {
		t.Fatalf("after the restore the oracle finds a difference (-want +got):\n%s", d)
	}
	if got := b.ledgerNumber(); got > n.Last {
		t.Errorf("after the restore the databases know transaction %d, and the last was %d", got, n.Last)
	}
	b.healthy()

	// Nothing is left to do.
	for _, u := range b.restored("-s", "ALL").Units {
		if u.Artifacts != 0 || u.Removed != 0 {
			t.Errorf("%s: %d artifacts changed, %d removed by a second restore", u.Unit, u.Artifacts, u.Removed)
		}
	}
	b.equal(restored)

	// Every index is built anew, though the worker dies in it; a restore brings back the sequence numbers, too.
	if b.reindexKilled() == 0 {
		t.Error("reindex rebuilt no index")
	}
	b.restored("-s", "ALL")
	b.equal(restored)
}

// reindexKilled kills the worker while it builds indices anew, and says how many were rebuilt in the end.
func (b *bench) reindexKilled() (indices int) {
	b.t.Helper()
	r := b.start("reindex", "--maintenance", "-o", "json")
	b.strike(r, "reindex", func(m moment) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(m.activities)), func(id string) bool { return strings.HasPrefix(id, "reindex:") })
	})
	b.killWorker()
	end := r.wait()
	b.expect(end, fine...)
	b.settled()
	var result workflows.Result
	b.read(end, &result)
	for _, u := range result.Units {
		indices += u.Artifacts
	}
	return indices
}

// writesRefused writes to Cassandra as an ordinary client does, until stop. Some of the writes must be refused by the server
// itself, and the first one afterwards must be taken again.
func (b *bench) writesRefused() (stop func()) {
	b.t.Helper()
	members, err := b.Members("cassandra", "")
	b.check(err)
	ctx, cancel := context.WithCancel(b.t.Context())
	refused := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			if err := labcassandra.OrdinaryWrite(ctx, members[0]); err != nil && strings.Contains(err.Error(), "not allowed for write") {
				n++
			}
		}
		refused <- n
	}()
	return func() {
		b.t.Helper()
		cancel()
		if <-refused == 0 {
			b.t.Error("Cassandra took every foreign write during the restore")
		}
		b.check(labcassandra.OrdinaryWrite(b.t.Context(), members[0]))
	}
}
