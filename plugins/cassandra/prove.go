package cassandra

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A table's content is proven in one of three ways. Equal SSTables (Data.db and header) hold equal rows;
// unequal ones prove nothing, because compaction rewrites them. Then the rows decide, read from
// all replicas, if the backup holds their digests: it does for tables that nobody wrote to between the snapshot and
// the end of the reading, and are among the smaller ones (option prove_mb). At last: the
// table was exact when its import ended, and its node has seen no write since.

func contentArtifact(t tableName) string  { return "content/" + t.String() }
func expiringArtifact(t tableName) string { return "expiring/" + t.String() }

// clockSlack is by how much the expiry of one cell may differ between two readings: the server
// tells seconds that remain, and counts from the second in which the statement began.
const clockSlack = 2

// provable says whether the rows of a table are read at backup time.
func (v *view) provable(t tableName) bool {
	v.choose.Do(func() {
		tables := v.schema.tables()
		slices.SortStableFunc(tables, func(a, b tableName) int { return cmp.Compare(v.size(a), v.size(b)) })
		v.chosen = map[tableName]bool{}
		left := proveTables * v.s.cfg.prove
		for _, t := range tables {
			if left -= v.size(t); left < 0 || v.size(t) > v.s.cfg.prove {
				return
			}
			v.chosen[t] = true
		}
	})
	return v.chosen[t]
}

// writeContent stores the digests of a table's rows, when they can be told; rows is how many were read.
func (v *view) writeContent(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, t tableName) (proven bool, rows int64, err error) {
	if v.gone != "" || !v.provable(t) {
		return false, 0, nil
	}
	a := plugins.Artifact{Name: contentArtifact(t), Form: plugins.Ordered, Pin: v.info.ID, Identity: v.identity(t)}
	e := a
	e.Name, e.Volatile = expiringArtifact(t), true
	known, err := w.Reuse(ctx, a)
	if err != nil {
		return false, 0, err
	}
	if known {
		if both, err := w.Reuse(ctx, e); both || err != nil {
			return true, 0, err
		}
	}
	own := v.ring.own()
	c, err := v.s.scan(ctx, run, t, v.ring.primary(own.HostID, len(v.ring.Nodes) == 1))
	if err != nil {
		if errors.Is(err, plugins.ErrUnavailable) && ctx.Err() == nil { // a replica is down: no answer from all
			run.Log.Info("rows are not digested: not all replicas answer", "table", t.String(), "err", err)
			return false, 0, nil
		}
		return false, 0, err
	}
	now, err := v.s.countWrites(ctx)
	if err != nil {
		return false, 0, err
	}
	before, counted := v.writes[t]
	if !known && (!counted || now[t] != before || c.overflow) {
		return false, c.rows, nil
	}
	if !known {
		if err := writeRecords(ctx, w, a, c.records()); err != nil {
			return false, c.rows, err
		}
	}
	return true, c.rows, writeRecords(ctx, w, e, c.expiries())
}

func (c *content) records() []record {
	var out []record
	for i, s := range c.spans {
		if d := c.lasting[i]; d.Records > 0 {
			out = append(out, record{s.key(), []byte(d.String())})
		}
	}
	slices.SortFunc(out, func(a, b record) int { return bytes.Compare(a.key, b.key) })
	return out
}

func (c *content) expiries() []record {
	out := make([]record, 0, len(c.expiring))
	for k, at := range c.expiring {
		out = append(out, record{k[:], binary.BigEndian.AppendUint64(nil, uint64(at))})
	}
	slices.SortFunc(out, func(a, b record) int { return bytes.Compare(a.key, b.key) })
	return out
}

// loadContent reads the digests of a table back; nil when the backup has none.
func loadContent(ctx context.Context, r plugins.ArtifactReader, t tableName) (*content, error) {
	rows, err := readRecords(ctx, r, contentArtifact(t))
	if errors.Is(err, plugins.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	out := &content{expiring: map[[32]byte]int64{}}
	for _, row := range rows {
		var d plugins.Digest
		if err := d.UnmarshalText(row.value); err != nil {
			return nil, fmt.Errorf("artifact %q: %w: %w", contentArtifact(t), err, plugins.ErrData)
		}
		out.lasting = append(out.lasting, d)
	}
	if rows, err = readRecords(ctx, r, expiringArtifact(t)); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if len(row.key) != 32 || len(row.value) != 8 {
			return nil, fmt.Errorf("artifact %q: %w: this backup was made by another version", expiringArtifact(t), plugins.ErrData)
		}
		out.expiring[[32]byte(row.key)] = int64(binary.BigEndian.Uint64(row.value))
	}
	return out, nil
}

// equal compares stored content with live content read a moment ago. What has expired since may be gone.
func (c *content) equal(live *content, now time.Time) bool {
	if c.total() != live.total() || live.overflow {
		return false
	}
	near := func(a, b int64) bool { return a-b <= clockSlack && b-a <= clockSlack }
	for k, at := range c.expiring {
		if got, ok := live.expiring[k]; ok && !near(at, got) || !ok && at > now.Unix()-clockSlack {
			return false
		}
	}
	for k := range live.expiring {
		if _, ok := c.expiring[k]; !ok {
			return false
		}
	}
	return true
}

// storedFile is one file in a backup.
type storedFile struct {
	plugins.ArtifactInfo
	table tableName
	name  string
}

// stored is a unit's part of a backup, without the content of files.
type stored struct {
	r      plugins.ArtifactReader
	known  map[string]string // see learn; nil: every file is hashed
	schema schema
	ring   ring
	files  map[tableName][]storedFile
}

func load(ctx context.Context, r plugins.ArtifactReader) (*stored, error) {
	out := &stored{r: r, files: map[tableName][]storedFile{}}
	var err error
	if out.schema, err = loadSchema(ctx, r); err != nil {
		return nil, err
	}
	if out.ring, err = loadRing(ctx, r); err != nil {
		return nil, err
	}
	for _, a := range r.Artifacts() {
		rest, ok := strings.CutPrefix(a.Name, "sstable/")
		if !ok {
			continue
		}
		i := strings.LastIndex(rest, "/")
		if i < 0 || !wanted(rest[i+1:]) || a.Form != plugins.File {
			return nil, fmt.Errorf("artifact %q is no file of an SSTable: %w: this backup was made by another version", a.Name, plugins.ErrData)
		}
		t, err := parseTable(rest[:i])
		if err != nil {
			return nil, err
		}
		if out.schema.table(t) == nil {
			return nil, fmt.Errorf("artifact %q belongs to a table without definition: %w", a.Name, plugins.ErrData)
		}
		out.files[t] = append(out.files[t], storedFile{a, t, rest[i+1:]})
	}
	return out, nil
}

// learn notes the fingerprints of files that are in a backup, by name and identity: a file that still is what it was when it
// was backed up needs no hashing to see what differs. The proof afterwards hashes.
func (s *stored) learn(from *stored) {
	if s.known == nil {
		s.known = map[string]string{}
	}
	for _, files := range from.files {
		for _, f := range files {
			if f.Identity != "" && strings.HasSuffix(f.name, "-Data.db") {
				s.known[f.Name+"\x00"+f.Identity] = fingerprint(f.Digest, f.Attributes["header"])
			}
		}
	}
}

func (s *stored) fingerprints(t tableName) []string {
	var out []string
	for _, f := range s.files[t] {
		if strings.HasSuffix(f.name, "-Data.db") {
			out = append(out, fingerprint(f.Digest, f.Attributes["header"]))
		}
	}
	slices.Sort(out)
	return out
}

// size is the bytes of a table's files.
func (s *stored) size(t tableName) (n int64) {
	for _, f := range s.files[t] {
		n += f.Bytes
	}
	return n
}

// sameFiles compares SSTables by what they hold; sizes first, because they cost nothing.
func (s *stored) sameFiles(ctx context.Context, v *view, t tableName, seen func(int)) (bool, error) {
	if v.before != nil {
		return v.before.schema.table(t) != nil && slices.Equal(v.before.fingerprints(t), s.fingerprints(t)), nil
	}
	var a, b []int64
	for _, f := range s.files[t] {
		if strings.HasSuffix(f.name, "-Data.db") {
			a = append(a, f.Bytes)
		}
	}
	for _, f := range v.files[t] {
		if f.data() {
			b = append(b, f.size)
		}
	}
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		return false, nil
	}
	live, err := v.fingerprints(ctx, t, s.known, seen)
	return err == nil && slices.Equal(live, s.fingerprints(t)), err
}

// how a table was found.
type how int

const (
	unproven how = iota // differs, as far as can be told
	byFiles
	byRows
	rowsDiffer
	unreadable // the server fails to read it
)

// scanned judges a scan that failed: while all nodes are up, a table that cannot be read is a damaged one.
func (s *session) scanned(ctx context.Context, run plugins.Run, t tableName, err error) (how, error) {
	if ctx.Err() != nil || !errors.Is(err, plugins.ErrUnavailable) {
		return unproven, err
	}
	run.Log.Warn("a table cannot be read", "table", t.String(), "err", err)
	return unreadable, nil
}

// compare says whether a table holds what the backup holds. whole: the ring is another one, and
// the first member compares all of it with all units of the backup.
func (s *stored) compare(ctx context.Context, run plugins.Run, v *view, t tableName, seen func(int)) (how, error) {
	same, err := s.sameFiles(ctx, v, t, seen)
	if err != nil || same {
		return byFiles, err
	}
	want, err := loadContent(ctx, s.r, t)
	if err != nil || want == nil {
		return unproven, err
	}
	own := v.ring.own()
	live, err := v.s.scan(ctx, run, t, v.ring.primary(own.HostID, len(v.ring.Nodes) == 1))
	if err != nil {
		return v.s.scanned(ctx, run, t, err)
	}
	if want.equal(live, time.Now()) {
		return byRows, nil
	}
	return rowsDiffer, nil
}
