package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// fenceLevels are all consistency levels of writes but those of the product's own statements.
const fenceLevels = "ANY,ONE,TWO,THREE,QUORUM,LOCAL_QUORUM,EACH_QUORUM,LOCAL_ONE,SERIAL"

// fenceNote is kept beside the data directory while the node is fenced: whoever comes next
// puts the prior setting back if its writer is dead. A server that is started anew has forgotten the fence.
type fenceNote struct {
	Epoch      uint64 `json:"epoch"`
	Generation int64  `json:"generation"`
	Prior      string `json:"prior"`
}

func (s *session) fenceFile(ctx context.Context) (string, error) {
	dirs, err := s.dataDirs(ctx)
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(dirs[0]), "cso_fence.json"), nil
}

// Fence makes the node refuse ordinary writes (guardrail of 5.0). It does not stop superusers, writes at ALL, nor
// changes of definitions; README.md says so.
func (s *session) Fence(ctx context.Context, run plugins.Run) error {
	if !s.v5 || s.down != nil {
		return fmt.Errorf("%s: fence: %w by Cassandra %s: stop the writers instead", s.cfg.target, plugins.ErrUnsupported, s.version)
	}
	file, err := s.fenceFile(ctx)
	if err != nil {
		return err
	}
	if _, err := s.claim(ctx, run); err != nil {
		return err
	}
	prior, err := s.disallowed(ctx)
	if err != nil {
		return err
	}
	g, _, err := s.moment(ctx)
	if err != nil {
		return err
	}
	note, err := readFence(file)
	switch {
	case err == nil && note.Generation == g:
		if note.Epoch == run.Epoch && sameLevels(prior, fenceLevels) {
			return nil
		}
		prior = note.Prior
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	b, err := json.Marshal(fenceNote{run.Epoch, g, prior})
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("%s: fence: %w: the worker must be able to write beside the data directory", s.cfg.target, err)
	}
	return s.admin.setGuardrail(ctx, fenceLevels)
}

// disallowed reads the guardrail from the server's table of settings, which shows it as it is now, by names in brackets.
func (s *session) disallowed(ctx context.Context) (string, error) {
	var v *string
	if err := s.c.Query("SELECT value FROM system_views.settings WHERE name = '" + guardrailName + "'").WithContext(ctx).Scan(&v); err != nil {
		return "", s.cfg.wrap(ctx, "read the guardrail of writes", err)
	}
	if v == nil {
		return "", nil
	}
	return strings.ReplaceAll(strings.Trim(*v, "[]"), " ", ""), nil
}

func sameLevels(a, b string) bool {
	x, y := strings.Split(a, ","), strings.Split(b, ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// Unfence puts the prior setting back.
func (s *session) Unfence(ctx context.Context, _ plugins.Run) error {
	file, err := s.fenceFile(ctx)
	if err != nil {
		return err
	}
	note, err := readFence(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := s.admin.setGuardrail(ctx, note.Prior); err != nil {
		return err
	}
	return os.Remove(file)
}

func readFence(file string) (n fenceNote, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, fmt.Errorf("%s: %w: remove it once `nodetool getguardrailsconfig %s` shows what you want", file, err, guardrailName)
	}
	return n, nil
}

// longFence is how long a restore may fence a node before its health tells.
const longFence = time.Hour

// fencedFor says how long the node has been fenced, 0 when it is not.
func (s *session) fencedFor(ctx context.Context) (time.Duration, error) {
	file, err := s.fenceFile(ctx)
	if err != nil {
		return 0, err
	}
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return time.Since(fi.ModTime()), nil
}

// endFence ends a fence that a run of a lower epoch left behind.
func (s *session) endFence(ctx context.Context, run plugins.Run) error {
	file, err := s.fenceFile(ctx)
	if err != nil {
		return err
	}
	note, err := readFence(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && note.Epoch >= run.Epoch {
		return nil
	} else if err != nil {
		return err
	}
	run.Log.Info("let writes in again that a dead run had fenced off", "epoch", note.Epoch)
	return s.Unfence(ctx, run)
}

// space is what is free and what there is in total on a directory's file system; 0 when unknown.
func space(dir string) (free, total int64) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0, 0
	}
	return int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize
}
