package fake

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// DB is the database that the plugin protects: named tables of byte records
// in one directory. A table is an immutable file. The files root-1, root-2, …
// name the file of each table, one for each commit; the highest number counts.
// A commit is link(2) to the next number: of several writers one succeeds and the others
// try again, and no process that stops in the middle can hold up another.
// The zero DB is not usable, see OpenDB.
type DB struct {
	dir  string
	last atomic.Int64 // a root known to exist; later ones are looked for from here
}

// Root is the state of the database at one revision.
type Root struct {
	Revision int64               `json:"revision"`
	Files    int64               `json:"files"` // names given to table files so far
	Tables   map[string]Table    `json:"tables"`
	Dropped  map[string]Table    `json:"dropped"` // who dropped a table last, and when
	Epoch    uint64              `json:"epoch"`   // highest that ever claimed the database
	Fenced   time.Time           `json:"fenced"`  // ordinary writers are refused until then
	Switch   plugins.SwitchState `json:"switch"`
}

// Table is where a table stands: its file, the revision that wrote it, and
// the epoch that did, 0 for ordinary writers.
type Table struct {
	File     string `json:"file,omitempty"`
	Revision int64  `json:"revision"`
	By       uint64 `json:"by"`
}

// Accounts is the table that holds the accounts: name to password hash.
const Accounts = "\x01accounts"

// OpenDB opens the database in dir, which must exist.
func OpenDB(dir string) (*DB, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: create the database first", plugins.ErrUnavailable, err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s is not a directory: %w", dir, plugins.ErrConfig)
	}
	return &DB{dir: dir}, nil
}

// Root reads the present state.
func (d *DB) Root() (Root, error) {
	r, _, err := d.root()
	return r, err
}

func (d *DB) rootPath(n int64) string {
	return filepath.Join(d.dir, "root-"+strconv.FormatInt(n, 10))
}

// root also gives the number of the root it read. Roots are never removed, so
// the highest is found by doubling steps.
func (d *DB) root() (Root, int64, error) {
	r := Root{Tables: map[string]Table{}, Dropped: map[string]Table{}}
	n := d.last.Load()
	for step := int64(1); step > 0; {
		switch _, err := os.Stat(d.rootPath(n + step)); {
		case err == nil:
			n += step
			step *= 2
		case errors.Is(err, fs.ErrNotExist):
			step /= 2
		default:
			return r, n, err
		}
	}
	d.last.Store(n)
	if n == 0 {
		return r, n, nil
	}
	b, err := os.ReadFile(d.rootPath(n))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, n, err
}

// Update changes the state in one step. It refuses a claimed
// epoch that is not the newest (ErrFenced), and ordinary writers (epoch 0)
// while the database is fenced.
func (d *DB) Update(ctx context.Context, epoch uint64, change func(*Root) error) error {
	return d.commit(ctx, func(r *Root) error {
		switch {
		case epoch > 0 && epoch < r.Epoch:
			return fmt.Errorf("epoch %d, the database belongs to epoch %d: %w", epoch, r.Epoch, plugins.ErrFenced)
		case epoch == 0 && time.Now().Before(r.Fenced):
			return fmt.Errorf("the database refuses writes until %s", r.Fenced.Format(time.RFC3339))
		case epoch > r.Epoch:
			r.Epoch = epoch
		}
		return change(r)
	})
}

// commit changes the state and removes the table files that fell out of use.
// change may be called several times.
func (d *DB) commit(ctx context.Context, change func(*Root) error) error {
	tmp, err := os.CreateTemp(d.dir, "new-*")
	if err != nil {
		return err
	}
	tmp.Close()
	defer os.Remove(tmp.Name())
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, n, err := d.root()
		if err != nil {
			return err
		}
		before := maps.Clone(r.Tables)
		if err := change(&r); err != nil {
			return err
		}
		b, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(tmp.Name(), b, 0o600); err != nil {
			return err
		}
		err = os.Link(tmp.Name(), d.rootPath(n+1))
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		for name, t := range before {
			if r.Tables[name].File != t.File {
				if err := os.Remove(filepath.Join(d.dir, t.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
		return nil
	}
}

// Replace writes a whole table: fill puts the records in key order; the table
// appears in one step when it has returned nil.
func (d *DB) Replace(ctx context.Context, epoch uint64, name string, fill func(put func(k, v []byte) error) error) error {
	tmp, err := os.CreateTemp(d.dir, "table-*")
	if err != nil {
		return err
	}
	defer tmp.Close()
	w := bufio.NewWriterSize(tmp, 64<<10)
	var n [binary.MaxVarintLen64]byte
	err = fill(func(k, v []byte) error {
		for _, p := range [][]byte{k, v} {
			if _, err := w.Write(n[:binary.PutUvarint(n[:], uint64(len(p)))]); err != nil {
				return err
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err = errors.Join(err, w.Flush()); err == nil {
		err = d.Update(ctx, epoch, func(r *Root) error {
			r.Revision++
			r.Tables[name] = Table{File: filepath.Base(tmp.Name()), Revision: r.Revision, By: epoch}
			delete(r.Dropped, name)
			return nil
		})
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// Drop removes a table.
func (d *DB) Drop(ctx context.Context, epoch uint64, name string) error {
	return d.Update(ctx, epoch, func(r *Root) error {
		if _, ok := r.Tables[name]; !ok {
			return nil
		}
		r.Revision++
		delete(r.Tables, name)
		r.Dropped[name] = Table{Revision: r.Revision, By: epoch}
		return nil
	})
}

// Scan reads a table file in key order. The slices are valid until the next call.
func (d *DB) Scan(ctx context.Context, t Table, each func(k, v []byte) error) error {
	f, err := os.Open(filepath.Join(d.dir, t.File))
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	var k, v []byte
	for {
		if k, err = field(r, k); err == io.EOF {
			return nil
		}
		if err == nil {
			v, err = field(r, v)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if err := each(k, v); err != nil {
			return err
		}
	}
}

// View links the files of the present state into dir: a snapshot that later
// writes cannot change, because no table file is ever written again.
func (d *DB) View(ctx context.Context, dir string) (*DB, Root, error) {
	for {
		r, _, err := d.root()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, r, err
		}
		for _, t := range r.Tables {
			err = os.Link(filepath.Join(d.dir, t.File), filepath.Join(dir, t.File))
			if err != nil && !errors.Is(err, fs.ErrExist) {
				break
			}
			err = nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // a commit came in between and removed a file: look again
		}
		return &DB{dir: dir}, r, err
	}
}

// field reads one length and that many bytes, growing with what arrives.
func field(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(buf[:0])
	if _, err := io.CopyN(b, r, int64(n)); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return b.Bytes(), nil
}
