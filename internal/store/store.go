package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/fsutil"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Names that callers use; the documents define them.
type (
	// Ref is manifest.Ref.
	Ref = manifest.Ref
	// UnitID is manifest.UnitID.
	UnitID = manifest.UnitID
	// UnitSummary is manifest.Unit.
	UnitSummary = manifest.Unit
)

// Errors of this package. Damaged data is plugins.ErrCorrupt, a full disk plugins.ErrSpace.
var (
	ErrSealed       = errors.New("backup is complete and is never changed")
	ErrFinished     = errors.New("unit is stored already")
	ErrNoSuchBackup = errors.New("no such backup")
	ErrIncomplete   = errors.New("backup is incomplete")
	ErrInUse        = errors.New("in use")
)

const (
	dirCSO        = ".cso"
	dirObjects    = ".cso/objects"
	dirTmp        = ".cso/tmp"
	dirJournal    = ".cso/journal"
	dirQuarantine = ".cso/quarantine"
	dirState      = ".cso/state"
	fileLock      = ".cso/lock"
	fileImport    = ".cso/import.lock"
	fileManifest  = "manifest.json"
	fileUnit      = "unit.json"
	dirConfig     = "config"
	filePieceLog  = "pieces.log"
)

// Memory bounds of one Store, in chunks of chunkSize.
const (
	chunkSize  = 1 << 20
	maxOpen    = 48 // artifacts open for writing at once, one chunk each
	heldWrite  = 64 // further chunks of pieces being written
	heldRead   = 64 // chunks of pieces decoded ahead of their readers
	maxWorkers = 8
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	root  *os.Root
	path  string
	write *budget
	read  *budget
	open  chan struct{} // one token for each artifact open for writing
	work  chan struct{} // one token for each piece being compressed
	proof chan struct{} // one token for each piece being proven
	index indexBytes
	codec codec
	// fault is called at the named points of a write; tests make it fail or kill the process there.
	fault func(point string) error
}

// Open opens the store at root, an absolute path, and makes its directories
// when they are absent.
func Open(root string) (*Store, error) {
	if !path.IsAbs(root) {
		return nil, fmt.Errorf("store %q: %w: give an absolute path", root, plugins.ErrConfig)
	}
	r, err := fsutil.MakeRoot(root)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	for _, d := range []string{dirObjects, dirTmp, dirJournal, dirQuarantine, dirState} {
		if err := fsutil.MkdirAll(r, d); err != nil {
			r.Close()
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	c, err := newCodec()
	if err != nil {
		r.Close()
		return nil, err
	}
	workers := min(maxWorkers, max(2, runtime.GOMAXPROCS(0)))
	return &Store{
		root: r, path: root, codec: c,
		write: newBudget(heldWrite), read: newBudget(heldRead),
		open: make(chan struct{}, maxOpen),
		work: make(chan struct{}, workers), proof: make(chan struct{}, workers),
	}, nil
}

// Close releases the store. Writers and readers must be closed before.
func (s *Store) Close() error { return s.root.Close() }

// Path is the root of the store.
func (s *Store) Path() string { return s.path }

// Free is the number of bytes that can still be stored.
func (s *Store) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.path, &st); err != nil {
		return 0, fmt.Errorf("store: free space: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Dir is the absolute path of a backup.
func (s *Store) Dir(ref Ref) string { return path.Join(s.path, ref.Name, ref.Timestamp) }

func (s *Store) at(point string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(point)
}

func (s *Store) exists(name string) bool {
	_, err := s.root.Lstat(name)
	return err == nil
}

func objectPath(id manifest.Hash) string {
	h := id.String()
	return dirObjects + "/" + h[:2] + "/" + h
}

func unitPath(ref Ref, u UnitID) string { return ref.String() + "/" + u.String() }

// spaceError marks what a full disk causes.
func spaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w: free space under the backup root, or remove old backups", plugins.ErrSpace, err)
	}
	return err
}

// budget counts chunks of memory. Whoever gets none although nothing is in
// flight must make room itself, so nobody ever waits for a chunk that only a
// waiting one could give back.
type budget struct {
	mu       sync.Mutex
	wake     sync.Cond
	free     int
	inflight int
}

func newBudget(n int) *budget {
	b := &budget{free: n}
	b.wake.L = &b.mu
	return b
}

// take gets one chunk; false: there is none, and none will come by waiting.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.free == 0 && b.inflight > 0 {
		b.wake.Wait()
	}
	if b.free == 0 {
		return false
	}
	b.free--
	return true
}

// tryTake gets n chunks at once, without waiting.
func (b *budget) tryTake(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free < n {
		return false
	}
	b.free -= n
	return true
}

func (b *budget) give(n int) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	b.wake.Broadcast()
}

// fly announces work that will give chunks back; land ends it and gives them.
func (b *budget) fly() {
	b.mu.Lock()
	b.inflight++
	b.mu.Unlock()
}

func (b *budget) land(chunks int) {
	b.mu.Lock()
	b.inflight--
	b.free += chunks
	b.mu.Unlock()
	b.wake.Broadcast()
}

// indexBytes bounds the boundary keys held for all open artifacts.
type indexBytes struct {
	mu sync.Mutex
	n  int64
}

func (i *indexBytes) add(n int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n > 0 && i.n+int64(n) > manifest.MaxIndex {
		return false
	}
	i.n += int64(n)
	return true
}

var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

func getChunk() []byte { return (*chunks.Get().(*[]byte))[:0] }

func putChunk(b []byte) {
	if cap(b) == chunkSize {
		chunks.Put(&b)
	}
}

// waitLock retries a lock that is held for short times, until ctx ends.
func waitLock(ctx context.Context, root *os.Root, name string, exclusive bool) (*fsutil.Lock, error) {
	for {
		l, err := fsutil.TryLock(root, name, exclusive)
		if !errors.Is(err, fsutil.ErrBusy) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), fmt.Errorf("%w: another process writes to or cleans the store", ErrInUse))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
