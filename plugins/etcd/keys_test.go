package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// viewOf opens a snapshot that holds the rows that fill puts; a deletion has no value.
func viewOf(t *testing.T, cfg *config, fill func(put func(rev int, key string, value []byte) error) error) *view {
	t.Helper()
	file := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(file, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket(bucketKey)
		if err != nil {
			return err
		}
		return fill(func(rev int, key string, value []byte) error {
			at := append(binary.BigEndian.AppendUint64(nil, uint64(rev)), '_')
			at = binary.BigEndian.AppendUint64(at, 0)
			if value == nil {
				at = append(at, 't')
			}
			p, err := proto.Marshal(&mvccpb.KeyValue{Key: []byte(key), Value: value})
			if err != nil {
				return err
			}
			return b.Put(at, p)
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	v, err := openView(t.Context(), cfg, file)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestKeysAreSorted compares the sort, with and without spilling to files, with a map.
func TestKeysAreSorted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]string{}
	v := viewOf(t, &config{switchKey: "k1"}, func(put func(int, string, []byte) error) error {
		for rev := 2; rev < 20_000; rev++ {
			key, value := fmt.Sprintf("k%d", rng.IntN(3000)), fmt.Append(nil, rev)
			if rng.IntN(4) == 0 {
				value = nil
				delete(want, key)
			} else {
				want[key] = string(value)
			}
			if err := put(rev, key, value); err != nil {
				return err
			}
		}
		return nil
	})
	defer v.close()
	delete(want, "k1")
	for _, memory := range []int{sortMemory, 64 << 10} {
		v.sortMemory = memory
		it, err := v.keys(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if spilled := len(it.files) > 0; spilled == (memory == sortMemory) {
			t.Errorf("memory %d: %d files", memory, len(it.files))
		}
		got, last := map[string]string{}, ""
		for {
			k, rec, err := it.next()
			if err == io.EOF {
				break
			}
			if err != nil || string(k) <= last {
				t.Fatalf("key %q after %q, %v", k, last, err)
			}
			last = string(k)
			got[last] = string(rec[8:])
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("memory %d: %s", memory, d)
		}
		if err := it.close(); err != nil {
			t.Error(err)
		}
	}
	if v.revision != 19_999 {
		t.Errorf("revision %d, want 19999", v.revision)
	}
}

// TestLargeSnapshotStaysOutside walks 160 MB of rows, and watches how much of the file is this process's memory.
func TestLargeSnapshotStaysOutside(t *testing.T) {
	const rows = 40_000
	v := viewOf(t, &config{}, func(put func(int, string, []byte) error) error {
		for rev, n := range rand.New(rand.NewPCG(1, 2)).Perm(rows) {
			if err := put(rev+2, fmt.Sprintf("k%d", n), make([]byte, 4000)); err != nil {
				return err
			}
		}
		return nil
	})
	defer v.close()
	before := fileMemory(t)
	it, err := v.keys(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	most, n := fileMemory(t), 0
	for ; ; n++ {
		if _, _, err := it.next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n%100 == 0 {
			most = max(most, fileMemory(t))
		}
	}
	if err := it.close(); err != nil {
		t.Error(err)
	}
	if n != rows {
		t.Errorf("%d rows, want %d", n, rows)
	}
	if grown := most - before; grown > 80<<10 {
		t.Errorf("%d MiB of the file were in memory at once", grown>>10)
	}
}

// fileMemory is how much of this process's memory is files, in KiB (proc(5), status).
func fileMemory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the kernel does not tell")
	return 0
}
