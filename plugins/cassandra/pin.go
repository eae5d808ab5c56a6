package cassandra

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Tags of snapshots: tagPin of a backup, tagLook of a comparison or plan. What follows is
// the epoch, the moment in seconds and a random part.
const (
	tagPin  = "cso-pin-"
	tagLook = "cso-look-"
)

// abandoned is how old a snapshot of a comparison must be to count as left behind.
const abandoned = 6 * time.Hour

// view is a snapshot of one node with all that belongs to its moment.
type view struct {
	s      *session
	tag    string
	info   plugins.PinInfo
	schema schema
	ring   ring
	files  map[tableName][]file
	writes map[tableName]int64 // how many writes the node had applied before the snapshot
	counts int64               // the server process that counted them: its generation
	gone   string              // why the node is missing from the backup; empty: it is not
	before *stored             // nil, or the safety backup of the same moment: its files are not listed again
	choose sync.Once
	chosen map[tableName]bool // see provable
}

// Pin flushes and links the files of all user tables of this node.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	v, err := s.look(ctx, run, tagPin)
	if err != nil {
		return nil, fmt.Errorf("pin: %w", err)
	}
	if run.Operation == plugins.OpSafety && v.gone == "" {
		s.seen.put(s.place(), pinned{epoch: run.Epoch, generation: v.counts, writes: v.writes})
	}
	return v, nil
}

// lookBack is the view that the safety backup of this run has taken, as far as a comparison needs it: its files are
// known, and so is how many writes each table had seen. nil: this process did not take it, or the server is another one since.
func (s *session) lookBack(ctx context.Context, run plugins.Run, before *stored) (*view, error) {
	p, ok := s.seen.pin(s.place())
	if before == nil || !ok || p.epoch != run.Epoch {
		return nil, nil
	}
	g, _, err := s.moment(ctx)
	if err != nil || g != p.generation {
		return nil, err
	}
	v := &view{s: s, writes: p.writes, before: before}
	if v.schema, err = s.readSchema(ctx); err != nil {
		return nil, err
	}
	v.ring, err = s.readRing(ctx)
	return v, err
}

// look takes a view. The schema is read before and after: one that changes in between is tried again.
func (s *session) look(ctx context.Context, run plugins.Run, kind string) (*view, error) {
	if s.down != nil {
		return s.lookWithout(ctx)
	}
	if err := s.sweep(ctx, run); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		v := &view{s: s, info: plugins.PinInfo{ID: rand.Text()}}
		v.tag = fmt.Sprintf("%s%d-%d-%s", kind, run.Epoch, time.Now().Unix(), strings.ToLower(v.info.ID[:8]))
		var err error
		if v.schema, err = s.readSchema(ctx); err != nil {
			return nil, err
		}
		if v.ring, err = s.readRing(ctx); err != nil {
			return nil, err
		}
		if v.counts, _, err = s.moment(ctx); err != nil {
			return nil, err
		}
		if v.writes, err = s.countWrites(ctx); err != nil {
			return nil, err
		}
		v.info.At = time.Now()
		if ks := v.schema.keyspaces(); len(ks) > 0 {
			if err := s.admin.snapshot(ctx, v.tag, ks); err != nil {
				return nil, errors.Join(err, v.Release(context.WithoutCancel(ctx)))
			}
		}
		after, err := s.readSchema(ctx)
		if err == nil && reflect.DeepEqual(after, v.schema) {
			if v.files, err = s.snapshotFiles(ctx, v.tag); err == nil {
				v.made()
				v.info.Position = "snapshot " + v.tag
				return v, nil
			}
		}
		err = errors.Join(err, v.Release(context.WithoutCancel(ctx)))
		if err != nil {
			return nil, err
		}
		if try == 3 {
			return nil, fmt.Errorf("%s: the schema changes all the time: %w: stop whoever changes it", s.cfg.target, plugins.ErrUnavailable)
		}
	}
}

// made takes the moment of the snapshot from the server itself, if its manifest tells (4.1 and newer).
func (v *view) made() {
	for _, l := range v.files {
		if len(l) == 0 {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(l[0].path), "manifest.json"))
		var m struct {
			Created time.Time `json:"created_at"`
		}
		if err == nil && json.Unmarshal(b, &m) == nil && !m.Created.IsZero() {
			v.info.At = m.Created
		}
		return
	}
}

// countWrites asks how many writes each table of this node has seen since the server started.
func (s *session) countWrites(ctx context.Context) (map[tableName]int64, error) {
	out := map[tableName]int64{}
	it := s.c.Query("SELECT keyspace_name, table_name, count FROM system_views.local_write_latency").WithContext(ctx).Iter()
	var t tableName
	var n int64
	for it.Scan(&t.keyspace, &t.table, &n) {
		if !system(t.keyspace) {
			out[t] = n
		}
	}
	if err := it.Close(); err != nil {
		return nil, s.cfg.wrap(ctx, "count writes", err)
	}
	return out, nil
}

func (v *view) Info() plugins.PinInfo { return v.info }

// awake connects again to a server that has died and come back since the pin, to which the driver's session does not find
// its way. It counts writes anew, so what its tables hold is not proven row by row.
func (v *view) awake(ctx context.Context) error {
	now, _, err := v.s.moment(ctx)
	if errors.Is(err, plugins.ErrUnavailable) && ctx.Err() == nil {
		c, cerr := v.s.cfg.connect(ctx, v.s.cfg.self)
		if cerr != nil {
			return cerr
		}
		v.s.c.Close()
		v.s.c = c
		now, _, err = v.s.moment(ctx)
	}
	if err == nil && now != v.counts {
		v.writes = nil
	}
	return err
}

// Release clears the snapshot.
func (v *view) Release(ctx context.Context) error {
	if v.tag == "" || v.gone != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := v.s.clear(ctx, v.tag)
	if err == nil {
		v.tag = ""
	}
	return err
}

// clear removes a snapshot, unless nothing is left of it. It is a directory of links that the server keeps no account
// of, so removing it does without the start of a JVM; where the worker may not, the server does it.
func (s *session) clear(ctx context.Context, tag string) error {
	found, err := s.snapshots(ctx, func(t string) bool { return t == tag })
	if err != nil || len(found) == 0 {
		return err
	}
	for _, dir := range found[tag] {
		if err := os.RemoveAll(dir); err != nil {
			return s.admin.clearSnapshot(ctx, tag)
		}
		_ = os.Remove(filepath.Dir(dir)) // stays while another snapshot is in it
	}
	return nil
}

// snapshots lists the tags of the node that are chosen, with their tables' directories.
func (s *session) snapshots(ctx context.Context, choose func(tag string) bool) (map[string][]string, error) {
	out := map[string][]string{}
	err := s.tableDirs(ctx, func(_ tableName, _, dir string) error {
		list, err := os.ReadDir(filepath.Join(dir, "snapshots"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: list snapshots: %w", s.cfg.target, err)
		}
		for _, e := range list {
			if choose(e.Name()) {
				out[e.Name()] = append(out[e.Name()], filepath.Join(dir, "snapshots", e.Name()))
			}
		}
		return nil
	})
	return out, err
}

// sweep clears what dead runs left behind: pins of lower epochs, and old comparisons.
func (s *session) sweep(ctx context.Context, run plugins.Run) error {
	if s.down != nil {
		return nil
	}
	if run.Operation != plugins.OpInspect {
		if err := s.endFence(ctx, run); err != nil {
			return err
		}
	}
	left, err := s.snapshots(ctx, func(tag string) bool {
		epoch, at, ok := parseTag(tag)
		switch {
		case !ok:
			return false
		case strings.HasPrefix(tag, tagPin):
			return run.Operation != plugins.OpInspect && epoch < run.Epoch
		}
		return time.Since(at) > abandoned || run.Operation != plugins.OpInspect && epoch < run.Epoch && time.Since(at) > time.Minute
	})
	if err != nil {
		return err
	}
	for _, tag := range slices.Sorted(maps.Keys(left)) {
		run.Log.Info("clear a snapshot that a dead run left behind", "tag", tag)
		if err := s.clear(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}

func parseTag(tag string) (epoch uint64, at time.Time, ok bool) {
	rest, found := strings.CutPrefix(tag, tagPin)
	if !found {
		if rest, found = strings.CutPrefix(tag, tagLook); !found {
			return 0, at, false
		}
	}
	f := strings.Split(rest, "-")
	if len(f) != 3 {
		return 0, at, false
	}
	epoch, err := strconv.ParseUint(f[0], 10, 64)
	sec, err2 := strconv.ParseInt(f[1], 10, 64)
	return epoch, time.Unix(sec, 0), err == nil && err2 == nil
}

// lost says that the snapshot is gone: somebody cleared it, or the disk was replaced.
func (v *view) lost() error {
	if v.gone != "" || len(v.files) == 0 {
		return nil
	}
	for _, l := range v.files {
		if _, err := os.Stat(l[0].path); err != nil {
			return fmt.Errorf("%s: snapshot %s: %w: %w", v.s.cfg.target, v.tag, plugins.ErrPinLost, err)
		}
	}
	return nil
}

// identity of a table's content as far as files tell: their names and stamps, and the definition.
func (v *view) identity(t tableName) string {
	h := sha256.New()
	if e := v.schema.table(t); e != nil {
		h.Write([]byte(e.Statement))
	}
	for _, f := range v.files[t] {
		if f.data() {
			fmt.Fprintf(h, "\x00%s %s", f.name, f.stamp)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// size is the number of bytes of a table's Data.db files.
func (v *view) size(t tableName) (n int64) {
	for _, f := range v.files[t] {
		if f.data() {
			n += f.size
		}
	}
	return n
}
