package etcd

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// TestKeysAreSorted compares the sort, with and without spilling to files, with a map.
func TestKeysAreSorted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]string{}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket(bucketKey)
		if err != nil {
			return err
		}
		for rev := uint64(2); rev < 20_000; rev++ {
			key, value := fmt.Sprintf("k%d", rng.IntN(3000)), fmt.Sprint(rev)
			at := append(binary.BigEndian.AppendUint64(nil, rev), '_')
			at = binary.BigEndian.AppendUint64(at, 0)
			kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value)}
			if rng.IntN(4) == 0 {
				at, kv.Value = append(at, 't'), nil
				delete(want, key)
			} else {
				want[key] = value
			}
			p, err := proto.Marshal(kv)
			if err != nil {
				return err
			}
			if err := b.Put(at, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := openView(t.Context(), &config{switchKey: "k1"}, file)
	if err != nil {
		t.Fatal(err)
	}
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
