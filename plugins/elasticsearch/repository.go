package elasticsearch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	// ownName begins the names of repositories, and is the directory below path.repo that holds them.
	ownName  = "cso-backup"
	snapshot = "cso"
)

// errNoPlace says that the nodes share no directory that this VM reaches: documents are exported instead.
var errNoPlace = errors.New("no usable path.repo")

func isNoPlace(err error) bool { return errors.Is(err, errNoPlace) }

// newName is a name that sorts and can be recognised by the epoch it holds.
func newName(epoch uint64) string {
	return fmt.Sprintf("%s-%d-%s", ownName, epoch, strings.ToLower(rand.Text()[:10]))
}

// place is a directory that all nodes share.
type place struct {
	remote string // as the nodes know it
	local  string // as this VM knows it
}

// findPlace reads path.repo of every node that holds data or may become master.
func (s *session) findPlace(ctx context.Context) (place, error) {
	var ns struct {
		Nodes map[string]struct {
			Name     string   `json:"name"`
			Roles    []string `json:"roles"`
			Settings struct {
				Path struct {
					Repo any `json:"repo"`
				} `json:"path"`
			} `json:"settings"`
		} `json:"nodes"`
	}
	if err := s.c.get(ctx, "/_nodes/settings?filter_path=nodes.*.name,nodes.*.roles,nodes.*.settings.path.repo", &ns); err != nil {
		return place{}, err
	}
	var common []string
	first := true
	for _, n := range ns.Nodes {
		if !slices.ContainsFunc(n.Roles, func(r string) bool { return strings.HasPrefix(r, "data") || r == "master" || r == "cluster_manager" }) {
			continue
		}
		var here []string
		switch v := n.Settings.Path.Repo.(type) {
		case string:
			here = strings.Split(v, ",")
		case []any:
			for _, x := range v {
				here = append(here, fmt.Sprint(x))
			}
		}
		if len(here) == 0 {
			return place{}, fmt.Errorf("%w: node %s has none", errNoPlace, n.Name)
		}
		if first {
			common, first = here, false
		}
		common = slices.DeleteFunc(common, func(p string) bool { return !slices.Contains(here, p) })
	}
	if len(common) == 0 {
		return place{}, fmt.Errorf("%w: the nodes name no common directory", errNoPlace)
	}
	p := place{remote: strings.TrimSpace(common[0])}
	p.local = p.remote
	if d := s.self.Options["repo_dir"]; d != "" {
		p.local = d
	}
	if fi, err := os.Stat(p.local); err != nil || !fi.IsDir() {
		return place{}, fmt.Errorf("%w: path.repo %s of the nodes is not reached on this VM at %s: mount it and name it as repo_dir", errNoPlace, p.remote, p.local)
	}
	return p, nil
}

// repository is a fresh place of snapshots that belongs to one attempt.
type repository struct {
	s        *session
	name     string
	dir      string // on this VM
	settings map[string]any
	root     *os.Root // of dir: the nodes' user owns it, and no link of theirs leads out of it
}

// newRepository registers a fresh repository and proves that all nodes and this VM see the same directory.
func (s *session) newRepository(ctx context.Context, epoch uint64) (*repository, error) {
	p, err := s.findPlace(ctx)
	if err != nil {
		return nil, err
	}
	r := &repository{s: s, name: newName(epoch)}
	r.dir = filepath.Join(p.local, ownName, r.name)
	set := map[string]any{"location": filepath.Join(p.remote, ownName, r.name), "compress": "true",
		"max_snapshot_bytes_per_sec": "0", "max_restore_bytes_per_sec": "0"} // 0: as fast as can be; the default is 40 MB/s
	r.settings = map[string]any{"type": "fs", "settings": set}
	if err := s.c.put(ctx, "/_snapshot/"+r.name, r.settings); err != nil {
		if ctx.Err() != nil || errors.Is(err, plugins.ErrAuth) || errors.Is(err, plugins.ErrUnavailable) || isFault(err, http.StatusForbidden, "") { // 403: a block on the whole cluster
			return nil, err
		}
		return nil, errors.Join(fmt.Errorf("%w: the nodes do not share %s: %w", errNoPlace, p.remote, err), r.remove(ctx))
	}
	if r.root, err = openBelow(p.local, r.name); err != nil {
		err = fmt.Errorf("%w: what the nodes write to %s does not appear on this VM at %s: name the right directory as repo_dir", errNoPlace, p.remote, p.local)
		return nil, errors.Join(err, r.remove(ctx))
	}
	return r, nil
}

// again registers the repository anew: from 7.17 on the nodes remember that it was empty.
func (r *repository) again(ctx context.Context) error {
	if err := r.unregister(ctx); err != nil {
		return err
	}
	return r.s.c.put(ctx, "/_snapshot/"+r.name, r.settings)
}

// unregister makes the cluster forget the repository; its files stay. A snapshot or restore that runs in it is aborted first.
func (r *repository) unregister(ctx context.Context) error { return r.s.unregister(ctx, r.name) }

func (s *session) unregister(ctx context.Context, name string) error {
	return s.c.remove(ctx, "/_snapshot/"+esc(name))
}

// remove unregisters and deletes the files, also when ctx has ended.
func (r *repository) remove(ctx context.Context) error {
	ctx, cancel := ending(ctx)
	defer cancel()
	if r.root != nil {
		r.root.Close()
	}
	return errors.Join(r.s.discard(ctx, r.name), removeBelow(filepath.Dir(filepath.Dir(r.dir)), r.name))
}

// openBelow opens the directory of a repository without following a link out of path.repo.
func openBelow(local, name string) (*os.Root, error) {
	base, err := os.OpenRoot(local)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return base.OpenRoot(filepath.Join(ownName, name))
}

func removeBelow(local, name string) error {
	base, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer base.Close()
	return base.RemoveAll(filepath.Join(ownName, name))
}

// spaced gives a full disk its kind.
func spaced(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w: make room in the directory of path.repo", plugins.ErrSpace, err)
	}
	return err
}

// discard ends what runs in a repository and unregisters it.
func (s *session) discard(ctx context.Context, name string) error {
	err := s.unregister(ctx, name)
	if err == nil {
		return nil
	}
	// In use: a snapshot is aborted by deleting it; a restore must end by itself.
	if derr := s.c.remove(ctx, "/_snapshot/"+esc(name)+"/"+snapshot); derr != nil {
		err = errors.Join(err, derr)
	}
	if werr := s.awaitRestores(ctx, name); werr != nil {
		return errors.Join(err, werr)
	}
	return s.unregister(ctx, name)
}

// leftovers removes what attempts of this epoch and older ones have left: repositories, and their files.
func (s *session) leftovers(ctx context.Context, epoch uint64) error {
	all := map[string]any{}
	if err := s.c.get(ctx, "/_snapshot?filter_path=*.type", &all); err != nil {
		return err
	}
	for name := range all {
		if older(name, epoch) {
			if err := s.discard(ctx, name); err != nil {
				return fmt.Errorf("repository %s of an earlier run: %w", name, err)
			}
		}
	}
	p, err := s.findPlace(ctx)
	if err != nil {
		if errors.Is(err, errNoPlace) {
			return nil
		}
		return err
	}
	left, err := os.ReadDir(filepath.Join(p.local, ownName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: this program must be able to read path.repo", s.target, err)
	}
	for _, e := range left {
		if older(e.Name(), epoch) {
			if err := removeBelow(p.local, e.Name()); err != nil {
				return fmt.Errorf("%s: files of an earlier run: %w", s.target, err)
			}
		}
	}
	return nil
}

func older(name string, epoch uint64) bool {
	var e uint64
	_, err := fmt.Sscanf(name, ownName+"-%d-", &e)
	return err == nil && e <= epoch
}

// free is how many bytes are left in the shared directory; 0 when unknown.
func (r *repository) free() int64 { return freeOf(r.dir) }

func freeOf(dir string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// owner gives files made by this program to the user the nodes run as.
func (r *repository) owner(f *os.File) error {
	fi, err := r.root.Stat(".")
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
