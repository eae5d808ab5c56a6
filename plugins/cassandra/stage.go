package cassandra

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// staging is a directory on the server's own file system with files to import, so that an import renames
// them and moves no bytes. Its path ends in KEYSPACE/TABLE, as an import demands, and carries the
// epoch and the pass: a newer attempt removes it, and what an older one still asks for is not found.
type staging struct {
	s      *session
	src    *sources
	base   string // all stagings
	dir    string // this pass
	tables []tableName
	again  bool // an attempt before this one had staged everything
	uid    int
	gid    int
}

const stagingName = "cso_staging"

// stagingBase is where stagings are: an option, or beside the first data directory.
func (s *session) stagingBase(dataDirs []string) string {
	if s.cfg.staging != "" {
		return s.cfg.staging
	}
	return filepath.Join(filepath.Dir(dataDirs[0]), stagingName)
}

// room is what is left free on the data file system, besides what is staged.
const room = 256 << 20

func (s *session) stage(ctx context.Context, run plugins.Run, p *pass, src *sources, tables []tableName) (*staging, error) {
	dirs, err := s.dataDirs(ctx)
	if err != nil {
		return nil, err
	}
	st := &staging{s: s, src: src, base: s.stagingBase(dirs), tables: tables, uid: -1, gid: -1}
	if fi, err := os.Stat(dirs[0]); err == nil && os.Geteuid() == 0 {
		if sys, ok := fi.Sys().(*syscall.Stat_t); ok { // the server moves the files and must own them
			st.uid, st.gid = int(sys.Uid), int(sys.Gid)
		}
	}
	h := fnv.New32a()
	h.Write([]byte(p.work))
	name := fmt.Sprintf("%d-%d-%08x", run.Epoch, p.number, h.Sum32())
	st.dir = filepath.Join(st.base, name)
	old, err := os.ReadDir(st.base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: staging: %w", s.cfg.target, err)
	}
	for _, e := range old {
		if e.Name() != name {
			if err := os.RemoveAll(filepath.Join(st.base, e.Name())); err != nil {
				return nil, fmt.Errorf("%s: remove what an older attempt staged: %w", s.cfg.target, err)
			}
		}
	}
	done, err := p.get(ctx, "staged")
	if err != nil {
		return nil, err
	}
	if _, ok := done[p.me]; ok {
		if _, err := os.Stat(st.dir); err == nil {
			st.again = true
			return st, nil
		}
	}
	if err := st.fill(ctx, run); err != nil {
		return nil, err
	}
	return st, p.put(ctx, "staged", struct{}{})
}

// mkdir makes a directory and those above it, the server's own.
func (st *staging) mkdir(dir string) error {
	if dir != st.base {
		if err := st.mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: staging: %w: the worker must be able to write beside the data directory, or set option staging_dir", st.s.cfg.target, err)
	}
	return os.Lchown(dir, st.uid, st.gid)
}

// fill reads all files of the tables from the backup. Nothing live is touched before that has ended.
func (st *staging) fill(ctx context.Context, run plugins.Run) error {
	if err := os.RemoveAll(st.dir); err != nil {
		return fmt.Errorf("%s: staging: %w", st.s.cfg.target, err)
	}
	if err := st.mkdir(st.dir); err != nil {
		return err
	}
	var need int64
	for _, t := range st.tables {
		need += st.src.size(t)
	}
	if free, total := space(st.dir); total > 0 && free < need+room {
		return fmt.Errorf("%s: %d MiB are to be restored and %d MiB free beside the data directory: %w: make room", st.s.cfg.target, need>>20, free>>20, plugins.ErrSpace)
	}
	var done atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for _, t := range st.tables {
		for _, unit := range st.src.units {
			dir := st.place(unit, t)
			if err := st.mkdir(dir); err != nil {
				return errors.Join(err, g.Wait())
			}
			seen := func(n int) {
				run.Report(plugins.Status{Phase: "load", Item: t.String(), Bytes: done.Add(int64(n)), Total: need})
			}
			var data []storedFile // after the small files, their checksums among them
			for _, f := range unit.files[t] {
				if strings.HasSuffix(f.name, "-Data.db") {
					data = append(data, f)
				} else if _, err := st.file(gctx, unit, f, filepath.Join(dir, f.name), seen); err != nil {
					return errors.Join(err, g.Wait())
				}
			}
			for _, f := range data {
				g.Go(func() error {
					path := filepath.Join(dir, f.name)
					sum, err := st.file(gctx, unit, f, path, seen)
					if err != nil {
						return err
					}
					return sound(path, sum)
				})
			}
		}
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("%s: %w", st.s.cfg.target, err)
	}
	return syncDir(st.dir)
}

// sound compares a staged Data.db with the server's own checksum, which an import would check only after
// the table has been emptied.
func sound(path string, sum uint32) error {
	want, known, err := checksum(digestOf(path))
	if err == nil && known && want != sum {
		err = fmt.Errorf("%s: %w: it was damaged on the server's disk when it was backed up: restore an older backup", filepath.Base(path), plugins.ErrCorrupt)
	}
	return err
}

// place is where an import finds the files of a table; each unit of the backup has its own, because names repeat.
func (st *staging) place(unit *stored, t tableName) string {
	return filepath.Join(st.dir, fmt.Sprint(slices.Index(st.src.units, unit)), t.keyspace, t.table)
}

func (st *staging) file(ctx context.Context, unit *stored, f storedFile, path string, seen func(int)) (sum uint32, err error) {
	in, err := unit.r.Open(ctx, f.Name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	buf := make([]byte, 256<<10)
	var size int64
	for {
		n, err := in.Read(buf)
		if n > 0 {
			sum = crc32.Update(sum, crc32.IEEETable, buf[:n])
			if _, werr := out.Write(buf[:n]); werr != nil {
				if errors.Is(werr, syscall.ENOSPC) {
					werr = fmt.Errorf("%w: %w: make room beside the data directory", plugins.ErrSpace, werr)
				}
				return 0, werr
			}
			size += int64(n)
			seen(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("artifact %q: %w", f.Name, err)
		}
	}
	if size != f.Bytes {
		return 0, fmt.Errorf("artifact %q: %d bytes of %d: %w", f.Name, size, f.Bytes, plugins.ErrCorrupt)
	}
	if err := out.Chown(st.uid, st.gid); err != nil {
		return 0, err
	}
	return sum, out.Close()
}

// syncDir writes all of the directory's file system to disk: one call for however many files.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// importAll imports every table that was not imported in this pass yet.
func (st *staging) importAll(ctx context.Context, run plugins.Run, p *pass) error {
	done, err := p.imported(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	n := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, min(4, run.Parallel)))
	for _, t := range st.tables {
		if done[t.String()] {
			continue
		}
		g.Go(func() error {
			if err := st.importTable(gctx, p, t); err != nil {
				return err
			}
			mu.Lock()
			n++
			run.Report(plugins.Status{Phase: "import", Item: t.String(), Bytes: int64(n), Total: int64(len(st.tables))})
			mu.Unlock()
			return p.put(gctx, "import "+t.String(), struct{}{})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if st.src.foreign {
		if err := st.s.cleanForeign(ctx, st.tables); err != nil {
			return err
		}
	}
	return os.RemoveAll(st.dir)
}

func (st *staging) importTable(ctx context.Context, p *pass, t tableName) error {
	for _, unit := range st.src.units {
		dir := st.place(unit, t)
		if len(unit.files[t]) == 0 {
			continue
		}
		if st.again {
			if err := st.resume(ctx, unit, t, dir); err != nil {
				return err
			}
		}
		left, err := dataFiles(dir)
		if err != nil {
			return fmt.Errorf("%s: staging of %s: %w: run the restore again", st.s.cfg.target, t, err)
		}
		if len(left) == 0 && st.again {
			continue // the import of the attempt before this one has ended
		}
		if n := countData(unit.files[t]); len(left) != n {
			return fmt.Errorf("%s: %d of %d SSTables of %s are staged: %w: somebody removed files; run the restore again", st.s.cfg.target, len(left), n, t, plugins.ErrUnavailable)
		}
		if err := st.load(ctx, p, t, dir); err != nil {
			return err
		}
		// An import that finds nothing to do says nothing: the files that it took are gone.
		if left, err = dataFiles(dir); err != nil || len(left) > 0 {
			return fmt.Errorf("%s: the server did not import %d SSTables of %s: %w: %w: see its system.log", st.s.cfg.target, len(left), t, plugins.ErrData, err)
		}
	}
	return nil
}

// importTries is how often the server is asked to import a table. It names a directory that it does not take and says why
// in its log only; a loaded 4.0.19 once refused sound files, which it took in every repetition of the same restore.
const importTries = 3

// load has the server import a directory. One that it does not take is left as it was.
func (st *staging) load(ctx context.Context, p *pass, t tableName, dir string) error {
	for try := 1; ; try++ {
		if err := p.c.check(ctx); err != nil {
			return err
		}
		err := st.s.admin.load(ctx, t.keyspace, t.table, dir, st.src.foreign)
		if err == nil || try == importTries || !errors.Is(err, plugins.ErrData) {
			return err
		}
		p.c.run.Log.Warn("the server did not import a table; it is asked again", "table", t.String(), "err", err)
		if err := plugins.Sleep(ctx, time.Duration(try)*500*time.Millisecond); err != nil {
			return err
		}
	}
}

// resume waits for an import that an earlier attempt left running in the server, and
// stages again what was moved half. A file that is imported twice changes nothing: the same cell wins.
func (st *staging) resume(ctx context.Context, unit *stored, t tableName, dir string) error {
	last, same := -1, 0
	for same < 5 {
		left, err := dataFiles(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(left) == 0 && err == nil {
			return nil
		}
		if len(left) == last {
			same++
		} else {
			last, same = len(left), 0
		}
		if last == countData(unit.files[t]) && same > 1 {
			return nil // nothing was moved
		}
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := st.mkdir(dir); err != nil {
		return err
	}
	for _, f := range unit.files[t] {
		if _, err := st.file(ctx, unit, f, filepath.Join(dir, f.name), func(int) {}); err != nil {
			return err
		}
	}
	return nil
}

func countData(files []storedFile) (n int) {
	for _, f := range files {
		if strings.HasSuffix(f.name, "-Data.db") {
			n++
		}
	}
	return n
}

func dataFiles(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), "-Data.db") {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// cleanForeign drops what the node holds of other nodes' partitions.
func (s *session) cleanForeign(ctx context.Context, tables []tableName) error {
	if len(s.cfg.target.Members) == 1 {
		return nil
	}
	var seen []string
	for _, t := range tables {
		if !slices.Contains(seen, t.keyspace) {
			seen = append(seen, t.keyspace)
			if err := s.admin.cleanup(ctx, t.keyspace); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropLinks removes the snapshots that the server makes by itself before it empties or drops a table
// (auto_snapshot): what this restore has overwritten is in the safety backup.
func (s *session) dropLinks(ctx context.Context, replaced []tableName, want schema, since time.Time) error {
	found, err := s.snapshots(ctx, func(tag string) bool {
		return strings.HasPrefix(tag, "truncated-") || strings.HasPrefix(tag, "dropped-")
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, dirs := range found {
		for _, dir := range dirs {
			fi, err := os.Stat(dir)
			if err != nil || fi.ModTime().Before(since.Truncate(time.Second)) {
				continue
			}
			home := filepath.Dir(filepath.Dir(dir))
			name := filepath.Base(home)
			t := tableName{filepath.Base(filepath.Dir(home)), name[:max(0, strings.LastIndex(name, "-"))]}
			if !slices.Contains(replaced, t) && want.table(t) != nil {
				continue
			}
			errs = append(errs, os.RemoveAll(dir))
			for _, up := range []string{filepath.Dir(dir), home, filepath.Dir(home)} {
				if want.table(t) != nil && up != filepath.Dir(dir) {
					break
				}
				_ = os.Remove(up) // stays while something else is in it
			}
		}
	}
	return errors.Join(errs...)
}
