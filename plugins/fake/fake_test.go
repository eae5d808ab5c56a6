package fake

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

const component = "etcd" // any row of the table will do

func TestMain(m *testing.M) { plugintest.Main(m, subject()) }

func target(t *testing.T, instance string) plugins.Target {
	return plugins.Target{Component: component, Instance: instance, Members: []plugins.Member{
		{Name: "fake-1", VM: "installer-vm", Options: map[string]string{"dir": t.TempDir()}}}}
}

func open(t testing.TB, on plugins.Target) *DB {
	t.Helper()
	db, err := OpenDB(on.Members[0].Options["dir"])
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func write(t testing.TB, db *DB, table string, records map[string]string) {
	t.Helper()
	keys := make([]string, 0, len(records))
	for k := range records {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	err := db.Replace(context.Background(), 0, table, func(put func(k, v []byte) error) error {
		for _, k := range keys {
			if err := put([]byte(k), []byte(records[k])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func table(rng *rand.Rand) map[string]string {
	out := map[string]string{}
	for range rng.IntN(300) {
		v := make([]byte, rng.IntN(200))
		for i := range v {
			v[i] = byte(rng.Uint32())
		}
		out[fmt.Sprintf("%x", rng.Uint32())] = string(v)
	}
	return out
}

func clear(t testing.TB, on plugins.Target) {
	db := open(t, on)
	r, err := db.Root()
	if err != nil {
		t.Fatal(err)
	}
	for n := range r.Tables {
		if err := db.Drop(context.Background(), 0, n); err != nil {
			t.Fatal(err)
		}
	}
}

func fill(t testing.TB, on plugins.Target, seed int64) {
	clear(t, on)
	db, rng := open(t, on), rand.New(rand.NewPCG(uint64(seed), 7))
	for i := range 8 {
		write(t, db, fmt.Sprintf("table %d", i), table(rng))
	}
	write(t, db, "empty", nil)
	write(t, db, "awkward ü/../\n", map[string]string{"": "empty key", "\x00": "", "\xff\xff": "\x00"})
	write(t, db, Accounts, map[string]string{"admin": fmt.Sprint(seed), "app": "hash"})
}

func wreck(t testing.TB, on plugins.Target, seed int64) {
	db, rng := open(t, on), rand.New(rand.NewPCG(uint64(seed), 8))
	write(t, db, fmt.Sprintf("table %d", rng.IntN(8)), table(rng))
	write(t, db, fmt.Sprintf("later %d", seed), table(rng))
	write(t, db, Accounts, map[string]string{"admin": "stolen", fmt.Sprint(seed): "x"})
	if err := db.Drop(context.Background(), 0, fmt.Sprintf("table %d", rng.IntN(8))); err != nil {
		t.Fatal(err)
	}
}

// fingerprint reads the files without the code under test.
func fingerprint(t testing.TB, on plugins.Target) string {
	dir := on.Members[0].Options["dir"]
	db := open(t, on)
	r, err := db.Root()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for name, tab := range r.Tables {
		b, err := os.ReadFile(filepath.Join(dir, tab.File))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%q %x", name, b))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// writer counts up in two tables, the second always one step behind or equal;
// invariant reads them back.
func writer(t testing.TB, on plugins.Target) func() {
	db := open(t, on)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	one := func(name string, n uint64) {
		_ = db.Replace(ctx, 0, name, func(put func(k, v []byte) error) error {
			return put([]byte("n"), binary.BigEndian.AppendUint64(nil, n))
		})
	}
	go func() {
		defer close(done)
		for n := uint64(1); ctx.Err() == nil; n++ {
			one("ledger a", n)
			one("ledger b", n)
		}
	}()
	return func() { cancel(); <-done }
}

func invariant(t testing.TB, on plugins.Target) {
	db := open(t, on)
	r, err := db.Root()
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) (n uint64) {
		if tab, ok := r.Tables[name]; ok {
			err := db.Scan(context.Background(), tab, func(_, v []byte) error { n = binary.BigEndian.Uint64(v); return nil })
			if err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	if a, b := read("ledger a"), read("ledger b"); a != b && a != b+1 {
		t.Errorf("torn: ledger a %d, ledger b %d", a, b)
	}
}

func large(t testing.TB, on plugins.Target) {
	v := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	err := open(t, on).Replace(context.Background(), 0, "large", func(put func(k, v []byte) error) error {
		for i := range 512 {
			if err := put(fmt.Appendf(nil, "%06d", i), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	second := target(t, "east")
	plugintest.Run(t, plugintest.Harness{
		Plugin: subject(), Target: target(t, plugins.DefaultInstance), Second: &second, Versions: "1",
		Fill: fill, Clear: clear, Wreck: wreck, Fingerprint: fingerprint, Writer: writer, Invariant: invariant,
		Large: large, MemoryLimit: 32 << 20,
		Position: func(t testing.TB, on plugins.Target) string {
			r, err := open(t, on).Root()
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(r.Revision)
		},
		TryWrite: func(on plugins.Target) error {
			db, err := OpenDB(on.Members[0].Options["dir"])
			if err != nil {
				return err
			}
			return db.Replace(context.Background(), 0, "foreign", func(func(k, v []byte) error) error { return nil })
		},
	})
}
