package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// hostileCommands are what scripts need to attack the command:
//
//	plain N CMD…        runs CMD without root's power over permissions
//	piece VAR DIR       the largest piece below DIR
//	flip FILE           changes one bit in the middle of a file
//	bits DIR CMD…       flips bits all over DIR/manifest.json; CMD must fail each time
//	forge DIR HOW       a worker's bomb, garbage or stranger in the place of a piece, everything else resealed to fit
//	silent VAR          a server that accepts connections and says nothing
//	babble VAR          a server that answers in another protocol
func hostileCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"plain": scriptPlain, "piece": scriptPiece, "flip": scriptFlip, "bits": scriptBits, "forge": scriptForge,
		"silent": func(ts *testscript.TestScript, _ bool, args []string) { scriptServer(ts, args, "") },
		"babble": func(ts *testscript.TestScript, _ bool, args []string) {
			scriptServer(ts, args, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		},
	}
}

func scriptPlain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: plain N command…")
	}
	if os.Geteuid() == 0 {
		args = append([]string{args[0], "setpriv", "--bounding-set=-dac_override,-dac_read_search"}, args[1:]...)
	}
	scriptExit(ts, false, args)
}

func scriptPiece(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: piece VAR DIR")
	}
	var largest string
	var size int64
	ts.Check(filepath.WalkDir(ts.MkAbs(args[1]), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".age") {
			return err
		}
		fi, err := d.Info()
		if err == nil && fi.Size() > size {
			largest, size = p, fi.Size()
		}
		return err
	}))
	if largest == "" {
		ts.Fatalf("no piece below %s", args[1])
	}
	ts.Setenv(args[0], largest)
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 0x10
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func scriptBits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: bits DIR command…")
	}
	file := filepath.Join(ts.MkAbs(args[0]), "manifest.json")
	good := []byte(ts.ReadFile(file))
	defer func() { ts.Check(os.WriteFile(file, good, 0o600)) }()
	for i := 0; i < len(good); i += len(good) / 24 {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 7)
		ts.Check(os.WriteFile(file, b, 0o600))
		if err := ts.Exec(args[1], args[2:]...); err == nil || err.Error() != "exit status 13" {
			ts.Fatalf("byte %d (%q): %v", i, good[i], err)
		}
	}
}

// scriptForge is a VM that is in somebody else's hands: it knows the recipients
// and its own units, and its lists and hashes fit what it stored.
func scriptForge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: forge DIR bomb|garbage|stranger")
	}
	dir := ts.MkAbs(args[0])
	raw := ts.ReadFile(filepath.Join(dir, "manifest.json"))
	m, err := manifest.Decode([]byte(raw))
	ts.Check(err)
	keyDir := filepath.Join(ts.Getenv("CSO_BACKUP_STATE"), "keys")
	w, err := keys.LoadWriter(keyDir)
	ts.Check(err)
	r, err := keys.LoadReader(keyDir)
	ts.Check(err)
	to, plain := w.Recipients, []byte("no frame at all")
	switch args[1] {
	case "bomb":
		e, err := zstd.NewWriter(nil)
		ts.Check(err)
		plain = e.EncodeAll(make([]byte, 256<<20), nil)
	case "stranger":
		id, err := age.GenerateX25519Identity()
		ts.Check(err)
		to = []age.Recipient{id.Recipient()}
	}
	var sealed bytes.Buffer
	out, err := age.Encrypt(&sealed, to...)
	ts.Check(err)
	_, err = out.Write(plain)
	ts.Check(errors.Join(err, out.Close()))

	at := filepath.Join(dir, m.Units[0].Path()[0], m.Units[0].Path()[1], m.Units[0].Path()[2])
	u, err := manifest.DecodeUnit([]byte(ts.ReadFile(filepath.Join(at, "unit.json"))))
	ts.Check(err)
	p := &u.Pieces[0]
	delta := int64(sealed.Len()) - p.Stored
	p.Stored, p.SHA256 = int64(sealed.Len()), manifest.SHA256(sealed.Bytes())
	u.Stored += delta
	if p.New {
		u.StoredNew += delta
	}
	name := filepath.Join(at, p.FileName())
	ts.Check(errors.Join(os.Remove(name), os.WriteFile(name, sealed.Bytes(), 0o600)))
	list, err := manifest.EncodeUnit(u)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(at, "unit.json"), list, 0o600))
	m.Units[0].StoredNew, m.Totals.StoredNew = u.StoredNew, m.Totals.StoredNew+u.StoredNew-m.Units[0].StoredNew
	m.Units[0].SHA256 = manifest.SHA256(list)
	m.Units[0].Stored += delta
	m.Totals.Stored += delta
	b, err := manifest.Encode(m, *r.ManifestKey)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o600))
}

func scriptServer(ts *testscript.TestScript, args []string, says string) {
	if len(args) != 1 {
		ts.Fatalf("usage: silent|babble VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, says)
			defer c.Close() // when the script ends
		}
	}()
	ts.Setenv(args[0], l.Addr().String())
}
