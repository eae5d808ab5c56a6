package files

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// hostileTree is an artifact "tree" of two records.
type hostileTree [][2]string

func (r hostileTree) Artifacts() []plugins.ArtifactInfo { return nil }
func (r hostileTree) Pieces(context.Context, string) ([]plugins.PieceInfo, error) {
	return nil, plugins.ErrUnsupported
}
func (r hostileTree) OpenPieces(context.Context, string, int, int) (plugins.RecordReader, error) {
	return nil, plugins.ErrUnsupported
}
func (r hostileTree) Open(context.Context, string) (plugins.RecordReader, error) {
	return &treeRecords{left: r}, nil
}

type treeRecords struct{ left hostileTree }

func (r *treeRecords) Next() ([]byte, []byte, error) {
	if len(r.left) == 0 {
		return nil, nil, io.EOF
	}
	x := r.left[0]
	r.left = r.left[1:]
	return []byte(x[0]), []byte(x[1]), nil
}
func (r *treeRecords) Read([]byte) (int, error) { return 0, plugins.ErrUnsupported }
func (r *treeRecords) Close() error             { return nil }

// FuzzTree: whatever a backup's list of files says, what is accepted lies
// below the configured paths, below directories of the backup.
func FuzzTree(f *testing.F) {
	const root = "/r/a"
	f.Add(root, `{"type":"dir","mode":448}`, root+"/f", `{"type":"file","sha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}`)
	f.Add(root, `{"type":"dir"}`, root+"/../b", `{"type":"symlink","target":"Li4="}`)
	f.Add(root, `{"type":"symlink","target":"L2V0Yw=="}`, root+"/passwd", `{"type":"absent"}`)
	f.Add(root+"b", `{"type":"dir"}`, root, `{}`)
	f.Fuzz(func(t *testing.T, p1, m1, p2, m2 string) {
		es, err := loadTree(t.Context(), hostileTree{{p1, m1}, {p2, m2}}, []string{root})
		if err != nil {
			if !errors.Is(err, plugins.ErrCorrupt) && !errors.Is(err, plugins.ErrData) && !errors.Is(err, plugins.ErrConfig) {
				t.Errorf("%v: of no known kind", err)
			}
			return
		}
		dirs := map[string]bool{}
		for _, e := range es {
			if e.Path != root && !strings.HasPrefix(e.Path, root+"/") || filepath.Clean(e.Path) != e.Path {
				t.Errorf("%q is accepted", e.Path)
			}
			if e.Path != root && !dirs[filepath.Dir(e.Path)] {
				t.Errorf("%q is accepted below what is no directory of the backup", e.Path)
			}
			dirs[e.Path] = e.Meta.Type == typeDir
		}
		if _, err := parsePaths(p1 + "," + p2); err == nil && strings.ContainsRune(p1, 0) {
			t.Errorf("a path with NUL: %q", p1)
		}
	})
}
