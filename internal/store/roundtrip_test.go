package store

import (
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func mixed() data {
	un := table(3, 3000, 4000)
	un.form = plugins.Unordered
	un.records = append(un.records, un.records[0], [2][]byte{nil, nil})
	return data{
		"empty/table":   {form: plugins.Ordered},
		"empty/file":    {form: plugins.File},
		"small":         pairs("a", "1", "b", "", "c", "3"),
		"one empty":     pairs("", ""),
		"big":           table(1, 25_000, 1000),
		"unordered":     un,
		"file":          {form: plugins.File, identity: "inode-7", file: noise(1, plugins.FileCut+12345)},
		"file/exact":    {form: plugins.File, file: make([]byte, plugins.FileCut)},
		"file/small":    {form: plugins.File, file: []byte("hello")},
		"huge \u00fc/x": {form: plugins.Unordered, records: [][2][]byte{{[]byte("k"), noise(5, 33<<20)}}},
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	x := newSite(t)
	d := mixed()
	ref, m := x.backup("DAILY", d)
	x.compare(ref, d)
	if m.Totals.StoredNew != m.Totals.Stored {
		t.Errorf("first backup: new %d of %d", m.Totals.StoredNew, m.Totals.Stored)
	}
	for _, o := range []VerifyOptions{{}, {Full: true}, {NewOnly: true}, {Full: true, Reader: &x.r}, {NewOnly: true, Reader: &x.r}} {
		rep, err := x.s.Verify(t.Context(), ref, o, nil)
		if err != nil || rep.Err() != nil {
			t.Fatal(err, rep.Err())
		}
		if (o.Full || o.NewOnly) != (rep.Read == m.Totals.Stored) {
			t.Errorf("%+v: read %d of %d", o, rep.Read, m.Totals.Stored)
		}
	}
	again, m2 := x.backup("DAILY", d)
	x.compare(again, d)
	if m2.Totals.StoredNew != 0 || m2.Totals.Stored != m.Totals.Stored {
		t.Errorf("second backup of the same data stored %d of %d", m2.Totals.StoredNew, m2.Totals.Stored)
	}
	if m.Units[0].Digest != m2.Units[0].Digest {
		t.Error("digest of the same data differs")
	}
}
