package zkfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

// sample is a small snapshot written by this package, which a real server accepts (see the ensemble test).
func sample(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	err := WriteSnapshot(dir, 0x100000007, func(put func(Node) error) error {
		return errors.Join(put(Node{Path: "/", Data: []byte{}, ACL: open}), put(Node{Path: "/a", ACL: open, Owner: Owner(true, 0), Czxid: 5}),
			put(Node{Path: "/b", Data: []byte("x"), ACL: open, Owner: Owner(false, 7000)}))
	}, [][]zkwire.ACL{open})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "snapshot.100000007"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSnapshotRoundTrip(t *testing.T) {
	var got []Node
	if err := readSnapshot(newStream(bytes.NewReader(sample(t))), func(n Node) error { got = append(got, n); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Path != "/" || got[1].Data != nil || !Container(got[1].Owner) || got[1].Czxid != 5 || TTL(got[2].Owner) != 7000 || Ephemeral(got[2].Owner) || !Ephemeral(1) {
		t.Errorf("%+v", got)
	}
}

// FuzzSnapshot: no file makes the reader fail otherwise than with ErrFormat, and no changed byte goes unseen.
func FuzzSnapshot(f *testing.F) {
	whole := sample(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		err := readSnapshot(newStream(bytes.NewReader(b)), func(Node) error { return nil })
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v, want ErrFormat", err)
		}
	})
}

func TestEveryChangedByteIsSeen(t *testing.T) {
	whole := sample(t)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x41
		if err := readSnapshot(newStream(bytes.NewReader(b)), func(Node) error { return nil }); !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d changed: %v, want ErrFormat", i, err)
		}
	}
}

// FuzzEvents: a transaction of any bytes gives events or ErrFormat.
func FuzzEvents(f *testing.F) {
	var e zkwire.Encoder
	e.String("/a")
	e.Bytes(nil)
	e.ACLs(open)
	e.Bool(false)
	e.Int(1)
	f.Add(int32(txnCreate), e.B)
	f.Fuzz(func(t *testing.T, kind int32, b []byte) {
		d := zkwire.Decoder{B: b}
		if err := events(&d, 1, kind, func(Event) error { return nil }); err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v, want ErrFormat", err)
		}
	})
}
