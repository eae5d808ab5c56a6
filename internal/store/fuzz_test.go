package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// FuzzPiece: any bytes in the place of a piece, as they are (the headers of
// age) and sealed for the right recipient (the frames of zstd). Nothing but
// the true plaintext is ever handed out as proven.
func FuzzPiece(f *testing.F) {
	x := newSite(f)
	u := UnitID{Component: "alpha", Instance: "central", Member: "cluster"}
	intro := pieceIntro(x.w.Fingerprint(), u)
	plain := []byte("the plaintext of this piece, of this piece, of this piece")
	mac := newPieceMAC(x.w.ContentKey[:], intro)
	mac.Write(plain)
	p := manifest.Piece{ID: manifest.Hash(mac.Sum(nil)), Bytes: int64(len(plain))}
	seal := func(b []byte) []byte {
		var out bytes.Buffer
		w, err := age.Encrypt(&out, x.w.Recipients...)
		if err == nil {
			_, err = w.Write(b)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			f.Fatal(err)
		}
		return out.Bytes()
	}
	whole := x.s.codec.frame(nil, plain)
	f.Add(true, whole)
	f.Add(true, stored(plain))
	f.Add(true, whole[:len(whole)-1])
	f.Add(true, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa4, 0xff, 0xff, 0xff, 0xff, 0x03, 0x00, 0x00})       // a frame that announces 4 GiB
	f.Add(true, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x02, 0xff, 0xff, 0x00, 0x03, 0xff, 0xff}) // a window of 2 GiB, a run of one byte
	f.Add(true, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0x7f})                               // a skippable frame
	f.Add(false, seal(whole))
	f.Add(false, []byte("age-encryption.org/v1\n-> X25519 AAAA\nAAAA\n--- AAAA\n"))
	dir := f.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, sealed bool, b []byte) {
		if sealed {
			b = seal(b)
		}
		p := p
		p.Stored, p.SHA256 = int64(len(b)), manifest.SHA256(b)
		if err := os.WriteFile(filepath.Join(dir, p.FileName()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := fsutil.OpenDir(root)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		o := &opener{s: x.s, dir: d, identities: x.r.Identities, key: x.w.ContentKey[:], intro: intro}
		s, err := o.stream(p)
		if err == nil {
			defer s.close()
			var got []byte
			if got, err = io.ReadAll(s); err == nil && !bytes.Equal(got, plain) {
				t.Fatalf("%q was handed out as proven", got)
			}
			if len(got) > len(plain) {
				t.Fatalf("%d bytes for %d", len(got), len(plain))
			}
		}
		if err != nil && !errors.Is(err, plugins.ErrCorrupt) {
			t.Fatalf("%v: want ErrCorrupt", err)
		}
	})
}

// FuzzLogs: the two logs beside the backups, of which a crash may leave any part.
func FuzzLogs(f *testing.F) {
	f.Add([]byte("\n{\"kind\":\"verify\",\"ok\":true,\"full\":true,\"at\":\"2026-01-01T00:00:00Z\"}\n"))
	f.Add([]byte("\n{\"id\":\"00\"}\n\n{\"kind\":\"damaged\"}\n{"))
	x := newSite(f)
	ref := x.next("D")
	if err := os.MkdirAll(filepath.Join(x.root, dirState, ref.Name), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(x.root, statePath(ref)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.State(ref); err != nil {
			t.Error(err)
		}
		name := dirTmp + "/fuzz.log"
		if err := os.WriteFile(filepath.Join(x.root, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := openPieceLog(x.s.root, name)
		if err != nil {
			t.Fatal(err)
		}
		l.close()
	})
}
