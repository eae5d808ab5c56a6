package manifest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

var ref = Ref{Name: "DAILY", Timestamp: "2019-03-16T04-00-07Z"}

func example() (Manifest, *UnitFile) {
	id := Hash{1}
	u := &UnitFile{Backup: ref, Fingerprint: "f", UnitHead: UnitHead{
		UnitID: UnitID{"alpha", "central", "cluster"}, Scope: plugins.ScopeCluster, Consistency: "one snapshot",
		Records: 3, Bytes: 12, Stored: 500, StoredNew: 300,
	}, Pieces: []Piece{{ID: Hash{1}, Stored: 300, Bytes: 100, New: true}, {ID: Hash{2}, Stored: 200, Bytes: 50}},
		Artifacts: []Artifact{
			{Artifact: plugins.Artifact{Name: "a", Form: plugins.Ordered}, Records: 2, Bytes: 10, Parts: []Part{{Piece: 0, Length: 20, Records: 2, ID: &id}}, Index: Part{Piece: 1, Length: 40}},
			{Artifact: plugins.Artifact{Name: "b", Form: plugins.File}, Records: 1, Bytes: 2, Parts: []Part{{Piece: 0, Offset: 20, Length: 2, Records: 1}}, Index: Part{Piece: 1, Offset: 40, Length: 10}},
		}}
	m := Manifest{Backup: ref, ID: "run", Tool: "1", Operation: plugins.OpBackup, Trigger: TriggerCLI, Started: time.Unix(1, 0).UTC(), Consistency: NoConsistencyPoint,
		Units: []Unit{u.Summary(Hash{9})}, Files: []SideFile{{Name: "estate.yaml", Size: 3}}}
	m.Sum()
	return m, u
}

func TestRoundTrip(t *testing.T) {
	m, u := example()
	key := keys.Key{1}
	b, err := Encode(m, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	m.Format, m.MAC = Format, got.MAC
	if d := cmp.Diff(m, got); d != "" {
		t.Error(d)
	}
	if err := CheckMAC(b, key); err != nil {
		t.Error(err)
	}
	if err := CheckMAC(b, keys.Key{2}); !errors.Is(err, ErrTampered) {
		t.Error(err)
	}
	for _, bad := range [][]byte{nil, []byte("{}"), b[:len(b)-1], append(bytes.Clone(b), '\n'), []byte(strings.Replace(string(b), `"run"`, `"ruN"`, 1))} {
		if err := CheckMAC(bad, key); !errors.Is(err, ErrTampered) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	b, err = EncodeUnit(u)
	if err != nil {
		t.Fatal(err)
	}
	gu, err := DecodeUnit(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(u, gu); d != "" {
		t.Error(d)
	}
}

func TestDecodeRefuses(t *testing.T) {
	m, u := example()
	mb, err := Encode(m, keys.Key{})
	if err != nil {
		t.Fatal(err)
	}
	ub, err := EncodeUnit(u)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		old, new string
		want     error
	}{
		{`"format": 2`, `"format": 3`, ErrFormat},
		{`"format": 2`, `"format": 3, "new": {}`, ErrFormat},
		{`"format": 2`, `"format": 0`, ErrDamaged},
		{`"format": 2`, `"format": 2, "unknown": 1`, ErrDamaged},
		{`"format": 2`, `"format": "2"`, ErrDamaged},
		{`DAILY/2019`, `../2019`, ErrDamaged},
		{`DAILY/2019-03-16`, `DAILY/2019-02-30`, ErrDamaged},
		{`"alpha"`, `".."`, ErrDamaged},
		{`"estate.yaml"`, `"../estate.yaml"`, ErrDamaged},
		{`"size": 3`, `"size": 99999999999`, ErrDamaged},
		{`"units": 1,`, `"units": 2,`, ErrDamaged},
	} {
		s := strings.Replace(string(mb), c.old, c.new, 1)
		if s == string(mb) {
			t.Fatalf("%q is not in the example", c.old)
		}
		if _, err := Decode([]byte(s)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	for _, c := range [][2]string{
		{`"format":2`, `"format":2,"x":1`}, {`"stored":300`, `"cut":-1,"stored":300`}, {`"stored":300`, `"cut":99999999999,"stored":300`},
		{`"p":0`, `"p":2`}, {`"p":0`, `"p":-1`}, {`"l":20`, `"l":101`}, {`"l":20`, `"l":9223372036854775807`}, {`"o":20`, `"o":99`}, {`"o":20`, `"o":-1`},
		{`"n":2`, `"n":3`}, {`"n":2`, `"n":-2`}, {`"bytes":100`, `"bytes":999999999999`}, {`"stored":300`, `"stored":99999999`}, {`"stored":300`, `"stored":301`},
		{`"name":"b"`, `"name":"a"`}, {`"name":"b"`, `"name":"\u0000"`}, {`"form":"file"`, `"form":"other"`},
		{`"id":"02`, `"id":"01`}, {`"id":"02`, `"id":"0G`}, {`"cluster"`, `""`}, {`"cluster"`, `"a/b"`}, {"\n", "\n{}"},
	} {
		s := strings.Replace(string(ub), c[0], c[1], 1)
		if s == string(ub) {
			t.Fatalf("%q is not in the example %s", c[0], ub)
		}
		if _, err := DecodeUnit([]byte(s)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c[1], err)
		}
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[string]bool{"DAILY": true, "a.b_c-9": true, "9": true, "": false, ".a": false, "_safety": false, "a/b": false, "a b": false, "ä": false,
		strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "..": false, "a\n": false} {
		if ValidName(s) != want {
			t.Errorf("%q", s)
		}
	}
	if got := Timestamp(time.Date(2019, 3, 16, 6, 0, 7, 999, time.FixedZone("", 7200))); got != "2019-03-16T04-00-07Z" {
		t.Error(got)
	}
	for _, s := range []string{"DAILY", "DAILY/", "/2019-03-16T04-00-07Z", "DAILY/2019-03-16", "DAILY/2019-3-16T04-00-07Z", "DAILY/2019-03-16T04-00-07Z/x", "../2019-03-16T04-00-07Z"} {
		if r, err := ParseRef(s); !errors.Is(err, ErrName) {
			t.Error(s, r, err)
		}
	}
	if r, err := ParseRef("_safety/2019-03-16T04-00-07Z"); err != nil || !r.Safety() {
		t.Error(r, err)
	}
}

func FuzzDecode(f *testing.F) {
	m, _ := example()
	b, err := Encode(m, keys.Key{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		_ = CheckMAC(b, keys.Key{})
		if err != nil {
			return
		}
		again, err := Encode(m, keys.Key{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeUnit(f *testing.F) {
	_, u := example()
	b, err := EncodeUnit(u)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := DecodeUnit(b)
		if err != nil {
			return
		}
		for _, a := range u.Artifacts {
			for _, p := range append(a.Parts, a.Index) {
				if n := u.Pieces[p.Piece].Bytes; p.Offset < 0 || p.Length <= 0 || p.Offset+p.Length > n || n > MaxPlain {
					t.Fatalf("part out of bounds: %+v of %d", p, n)
				}
			}
		}
	})
}
