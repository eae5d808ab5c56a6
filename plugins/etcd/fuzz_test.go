package etcd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// FuzzSnapshotRecords: records of a snapshot that no server wrote. The view
// says so, or reads them; it never ends the process.
func FuzzSnapshotRecords(f *testing.F) {
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add([]byte("12345678_12345678"), marshal(&mvccpb.KeyValue{Key: []byte("/a"), Value: []byte("v"), ModRevision: 3, Version: 1, CreateRevision: 3}),
		marshal(&leasepb.Lease{ID: 7, TTL: 60}), marshal(&authpb.User{Name: []byte("root"), Roles: []string{"root"}}), marshal(&authpb.Role{Name: []byte("root")}))
	f.Add([]byte{1}, []byte{0xff}, []byte{0x08}, []byte{}, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	cfg, err := newConfig(plugins.Target{Component: "etcd", Members: []plugins.Member{{Name: "m", Address: "http://127.0.0.1:1"}}})
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, key, kv, lease, user, role []byte) {
		path := filepath.Join(dir, "snapshot")
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		put := func(tx *bolt.Tx, bucket, k, v []byte) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			if err != nil || len(k) == 0 || len(k) > bolt.MaxKeySize {
				return err
			}
			return b.Put(k, v)
		}
		for bucket, record := range map[string][]byte{string(bucketKey): kv, string(bucketLease): lease, string(bucketUsers): user, string(bucketRoles): role, string(bucketMeta): kv} {
			if err := db.Update(func(tx *bolt.Tx) error { return put(tx, []byte(bucket), key, record) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		v, err := openView(t.Context(), cfg, path)
		if err != nil {
			return
		}
		defer v.close()
		it, err := v.keys(t.Context(), dir)
		if err != nil {
			return
		}
		defer it.close()
		for {
			k, record, err := it.next()
			if err != nil || k == nil {
				return
			}
			if len(record) < 8 {
				t.Fatalf("key %q: record of %d bytes", k, len(record))
			}
		}
	})
}

// FuzzConfigurationFiles: what discovery reads on a host.
func FuzzConfigurationFiles(f *testing.F) {
	f.Add("ETCD_NAME=\"a\"\nexport ETCD_LISTEN_CLIENT_URLS='https://10.0.0.1:2379'")
	f.Add("name: a\nlisten-client-urls: http://x\nclient-transport-security: {cert-file: /x}")
	f.Add("a: &a [*a, *a]")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		p := filepath.Join(dir, "f")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, _, err := readEnv(p); err != nil || s == nil {
			t.Error(err)
		}
		_, _ = readYAML(p)
	})
}

// FuzzKeyValue: a row is read as the server's own types read it.
func FuzzKeyValue(f *testing.F) {
	for _, kv := range []*mvccpb.KeyValue{{}, {Key: []byte("/a"), Value: []byte("v"), ModRevision: 3, Version: 1, CreateRevision: 3, Lease: -7}, {Key: []byte{0, 0xff}, Lease: 1 << 62}} {
		b, err := proto.Marshal(kv)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...)) // the last one counts
		f.Add(append(b, 0x0a)) // cut off
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want mvccpb.KeyValue
		err := proto.Unmarshal(b, &want)
		got, perr := parseKeyValue(b)
		if (err == nil) != (perr == nil) {
			t.Fatalf("%x: %v, the server's types: %v", b, perr, err)
		}
		if err == nil && (string(got.key) != string(want.GetKey()) || string(got.value) != string(want.GetValue()) || got.lease != want.GetLease()) {
			t.Fatalf("%x: %q %q %d, the server's types: %q %q %d", b, got.key, got.value, got.lease, want.GetKey(), want.GetValue(), want.GetLease())
		}
	})
}
