package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	typeFile    = "file"
	typeDir     = "dir"
	typeSymlink = "symlink"
	typeLink    = "link"   // a further name of an earlier file
	typeAbsent  = "absent" // a configured path that did not exist
)

// meta is the value of a record of the tree, as JSON; the key is the path.
type meta struct {
	Type   string            `json:"type"`
	Mode   uint32            `json:"mode,omitempty"` // permission bits with setuid, setgid and sticky
	UID    int               `json:"uid,omitempty"`
	GID    int               `json:"gid,omitempty"`
	MTime  int64             `json:"mtime,omitempty"` // ns since 1970
	Size   int64             `json:"size,omitempty"`
	SHA256 []byte            `json:"sha256,omitempty"`
	Target []byte            `json:"target,omitempty"` // of a symlink; of a link: the path of the first name
	XAttrs map[string][]byte `json:"xattrs,omitempty"`
}

func (m meta) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // no value of this type fails
	}
	return b
}

func (m meta) equal(o meta) bool { return bytes.Equal(m.encode(), o.encode()) }

const (
	maxEntries = 1 << 20
	chunkSize  = 1 << 20 // bytes of content in one record
)

// loadTree reads the tree of a backup and refuses what a hostile or damaged
// one could use to reach outside the roots.
func loadTree(ctx context.Context, r plugins.ArtifactReader, roots []string) ([]entry, error) {
	rr, err := r.Open(ctx, treeName)
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", treeName, err)
	}
	defer rr.Close()
	var out []entry
	byPath := map[string]string{}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		k, v, err := rr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", treeName, err)
		}
		e := entry{Path: string(k)}
		d := json.NewDecoder(bytes.NewReader(v))
		d.DisallowUnknownFields()
		if err := d.Decode(&e.Meta); err != nil {
			return nil, fmt.Errorf("record %q of %s: %w: %w", k, treeName, err, plugins.ErrCorrupt)
		}
		if len(out) == maxEntries {
			return nil, fmt.Errorf("the backup holds more than %d files: %w", maxEntries, plugins.ErrData)
		}
		if err := e.check(roots, byPath); err != nil {
			return nil, err
		}
		if n := len(out); n > 0 && out[n-1].Path >= e.Path {
			return nil, fmt.Errorf("record %q: out of order: %w", k, plugins.ErrCorrupt)
		}
		byPath[e.Path] = e.Meta.Type
		out = append(out, e)
	}
}

func (e entry) check(roots []string, seen map[string]string) error {
	bad := func(why string) error {
		return fmt.Errorf("record %q of the backup: %s: it was not written by this product: %w", e.Path, why, plugins.ErrData)
	}
	if !filepath.IsAbs(e.Path) || filepath.Clean(e.Path) != e.Path || strings.ContainsRune(e.Path, 0) {
		return bad("the path is not absolute and plain")
	}
	isRoot := slices.Contains(roots, e.Path)
	if !isRoot {
		if !slices.ContainsFunc(roots, func(r string) bool { return within(e.Path, r) }) {
			return fmt.Errorf("the backup holds %s, which `paths` in the estate file does not name: add it there: %w", e.Path, plugins.ErrConfig)
		}
		if seen[filepath.Dir(e.Path)] != typeDir {
			return bad("its folder is not a directory of the backup")
		}
	}
	if isTemporary(filepath.Base(e.Path)) {
		return bad("the name is reserved")
	}
	m := e.Meta
	if m.Mode&^0o7777 != 0 || m.UID < 0 || m.GID < 0 || m.Size < 0 {
		return bad("mode, owner or size is impossible")
	}
	for name := range m.XAttrs {
		if !kept(name) {
			return bad("extended attribute " + name)
		}
	}
	switch m.Type {
	case typeDir:
	case typeFile:
		if len(m.SHA256) != 32 {
			return bad("no checksum")
		}
	case typeSymlink:
		if len(m.Target) == 0 || bytes.ContainsRune(m.Target, 0) {
			return bad("no target")
		}
	case typeLink:
		if seen[string(m.Target)] != typeFile {
			return bad("a further name of a file that is not in the backup")
		}
	case typeAbsent:
		if !isRoot {
			return bad("absent, but no configured path")
		}
	default:
		return bad("unknown type " + m.Type)
	}
	return nil
}

// contentKey orders the chunks of a file by offset, and files like their paths (no path holds a NUL).
func contentKey(path string, off int64) []byte {
	k := append([]byte(path), 0)
	for i := 56; i >= 0; i -= 8 {
		k = append(k, byte(off>>i))
	}
	return k
}
