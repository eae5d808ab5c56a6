// Package files is the lab's engine for what has no server: secrets and
// certificates, kept as files below a member's directory. It judges with
// nothing but the operating system's own calls.
package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Engine makes and judges directory trees.
type Engine struct{ component string }

var _ engine.Engine = (*Engine)(nil)

// New makes an engine for the component "secrets" or "certificates".
func New(component string) *Engine { return &Engine{component: component} }

// Component is "secrets" or "certificates".
func (e *Engine) Component() string { return e.component }

// Ports are none.
func (e *Engine) Ports() []string { return nil }

// Install has nothing to do.
func (e *Engine) Install(context.Context, io.Writer) error { return nil }

// Prepare names the protected paths: a directory, and a single file beside it.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	for _, m := range members {
		tree, single := filepath.Join(m.Dir, "etc", e.component), filepath.Join(m.Dir, "etc", e.component+".single")
		if err := os.MkdirAll(tree, 0o700); err != nil {
			return fmt.Errorf("make the protected directory: %w", err)
		}
		m.Options["paths"] = tree + "," + single
	}
	return nil
}

func roots(m engine.Member) []string { return strings.Split(m.Options["paths"], ",") }

// Command is empty: there is no process.
func (e *Engine) Command(engine.Member, []engine.Member) (argv, env []string, err error) {
	return nil, nil, nil
}

// Ready asks for the directory.
func (e *Engine) Ready(_ context.Context, m engine.Member) error {
	_, err := os.Stat(filepath.Dir(roots(m)[0]))
	return err
}

// Secure has nothing to do.
func (e *Engine) Secure(context.Context, []engine.Member) error { return nil }

// Env names the protected paths for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	return []string{fmt.Sprintf("LAB_%s_%d_PATHS=%s", strings.ToUpper(e.component), n, m.Options["paths"])}
}

// Target is the member in the estate file; it has no address.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	return "", map[string]string{"paths": m.Options["paths"]}
}

// Fingerprint lists every file, directory and link below the protected paths
// with type, mode (set-id and sticky bits included), owner, group, modification
// time to the nanosecond and content. Paths are relative to the member's
// directory. Times of access and of inode change are not compared: nobody can
// set the latter, and reading changes the former.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	var lines []string
	for _, m := range members {
		for _, root := range roots(m) {
			err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) && path == root {
					return nil // an absent root has no lines
				}
				if err != nil {
					return err
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				line, err := describe(m, path)
				lines = append(lines, line)
				return err
			})
			if err != nil {
				return fmt.Errorf("read %s: %w", root, err)
			}
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return nil
}

func describe(m engine.Member, path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	kind, content := "other", fmt.Sprintf("type=%o", st.Mode&unix.S_IFMT)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		kind, content = "file", fmt.Sprintf("length=%d sha256=%x", len(b), sha256.Sum256(b))
	case unix.S_IFDIR:
		kind, content = "directory", "-"
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		kind, content = "link", "to="+strconv.QuoteToASCII(to)
	}
	relative, err := filepath.Rel(m.Dir, path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s\t%s\tmode=%04o owner=%d:%d mtime=%d.%09d %s", kind, strconv.QuoteToASCII(relative),
		st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, content), nil
}
