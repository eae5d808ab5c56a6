package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// restorePasses bounds how often a restore repairs what somebody else writes meanwhile.
const restorePasses = 6

// applier makes the live data equal to a backup.
type applier struct {
	s     *session
	run   plugins.Run
	r     plugins.ArtifactReader
	want  *stored
	same  bool // the backup is of the same mode
	bytes atomic.Int64
	below safetyNet

	mu      sync.Mutex
	rep     plugins.Report
	touched map[string]bool           // artifacts
	removed map[string]bool           // definitions that appeared later
	seen    map[string]string         // what differed in the pass before, and how it was
	found   map[string]string         // the same of this pass
	trouble string                    // a write that somebody else spoiled
	told    map[string]plugins.Digest // what the safety backup has seen, by artifact; nil after the first pass
}

// Restore makes the live data equal to the backup, accounts apart. What is equal is not touched; the
// product's own guard document is written always, so that an attempt which still sleeps finds itself overtaken.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	a := &applier{s: s, run: run, r: r, touched: map[string]bool{}, removed: map[string]bool{}, seen: map[string]string{}}
	a.rep = plugins.Report{ServerVersion: s.version.text, Consistency: "definitions first, documents in parallel, then indexes and views; compared until nothing differs"}
	err := a.all(ctx)
	a.rep.Artifacts, a.rep.Removed = len(a.touched), len(a.removed)
	a.rep.Unchanged = max(0, len(r.Artifacts())-2-len(a.touched)) // generators and accounts apart
	a.rep.Bytes = a.bytes.Load()
	if a.below.made != "" {
		a.rep.Consistency += "; hot backup " + a.below.made + " lay below it"
	}
	if a.below.warn != "" {
		a.rep.Warnings = append(a.rep.Warnings, a.below.warn)
	}
	if err != nil && run.Operation == plugins.OpRollback {
		err = s.below(ctx, err)
	}
	return a.rep, s.finish(ctx, err)
}

// write sends what changes the server.
func (a *applier) write(ctx context.Context, q call) (*answer, error) {
	a.below.spread(ctx, a.s, a.run)
	return a.s.c.do(ctx, q)
}

func (a *applier) all(ctx context.Context) (err error) {
	if _, err := a.s.hotOption(a.run); err != nil {
		return err
	}
	if a.want, err = readStored(ctx, a.r); err != nil {
		return err
	}
	a.same = a.want.mode == a.s.mode()
	if err := a.s.claim(ctx, a.run); err != nil {
		return err
	}
	if a.run.Live != nil {
		a.told = map[string]plugins.Digest{}
		for _, x := range a.run.Live.Artifacts() {
			a.told[x.Name] = x.Digest
		}
	}
	dirty := map[string]bool(nil) // nil: all
	for pass := 0; ; pass++ {
		a.found = map[string]string{}
		touched, last, err := a.pass(ctx, dirty, pass == restorePasses)
		if err != nil {
			return err
		}
		if len(touched) == 0 {
			return remember(a.run)
		}
		if last {
			a.rep.Warnings = append(a.rep.Warnings, "somebody else kept writing during the restore: "+a.trouble+": stop the applications and restore again")
			return remember(a.run)
		}
		a.seen, dirty, a.told = a.found, touched, nil
		if touched[databasesName] { // what the server makes by itself in a new database is read again
			dirty = nil
		}
	}
}

// pass compares and repairs. It returns the artifacts that differed.
func (a *applier) pass(ctx context.Context, dirty map[string]bool, look bool) (map[string]bool, bool, error) {
	v, err := a.s.snapshot(ctx, a.run)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = v.release(ctx) }()
	live, err := v.readLayout(ctx, a.run.Parallel)
	if err != nil {
		return nil, false, err
	}
	diff := map[string]bool{}
	items := a.s.differ(live, a.want)
	for _, it := range items {
		diff[it.artifact()] = true
		state := it.how
		if it.how == "changed" {
			state += string(it.live)
		}
		if err := a.note(it.String(), it.how, state); err != nil {
			return nil, false, err
		}
	}
	w := &structure{applier: a, live: live, fresh: map[string]bool{}, suspended: map[string]bool{}}
	if !look {
		again, err := w.before(ctx, items)
		if err != nil {
			return nil, false, err
		}
		if again { // databases were made anew: everything below them is read again
			a.keep(diff)
			return diff, false, nil
		}
	}
	if err := a.documents(ctx, v, w, dirty, diff, look); err != nil {
		return nil, false, err
	}
	if look {
		return diff, true, nil
	}
	if err := w.after(ctx, items, diff); err != nil {
		return nil, false, err
	}
	a.keep(diff)
	return diff, false, nil
}

func (a *applier) keep(diff map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range diff {
		a.touched[n] = true
	}
}

// note remembers what differs. The same twice, although the server took what was written to repair it,
// and nobody else's doing: the server keeps it otherwise than it was written.
func (a *applier) note(what, how, state string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.found[what] = state
	if how == "changed" && a.seen[what] == state && a.trouble == "" {
		return fmt.Errorf("%s: the server does not keep it as it was written: %w: compare the server's version and options with those of the backup", what, plugins.ErrData)
	}
	return nil
}

// spoiled says whether an error means that somebody else changed the same thing at the same time: the next pass sees to it.
func (a *applier) spoiled(err error) bool {
	if err == nil || !numbered(err, errNoCollection, errNoDatabase, errDuplicateName, errConflict, errNoIndex, errNoDocument, errUnique) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble = err.Error()
	return true
}

// documents compares and repairs the documents of all collections, or only of the dirty ones.
func (a *applier) documents(ctx context.Context, v *view, w *structure, dirty, diff map[string]bool, look bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, a.run.Parallel))
	var mu sync.Mutex
	for _, db := range union(w.live.databases, a.want.databases) {
		wd := a.want.databases[db]
		if wd == nil {
			continue // dropped as a whole
		}
		var ld map[string]*collection
		if d := w.live.databases[db]; d != nil {
			ld = d.collections
		}
		for _, name := range union(ld, wd.collections) {
			artifact := documentsName(db, name)
			info, stored := a.want.infos[artifact]
			if hidden(db, name) || dirty != nil && !dirty[artifact] && !w.fresh[db+"/"+name] || !stored && !serverOwned(name) {
				continue
			}
			g.Go(func() error {
				t := &collectionTask{applier: a, w: w, db: db, name: name, live: ld[name], want: wd.collections[name], look: look}
				if stored {
					t.info = &info
				}
				n, err := t.work(ctx, v)
				if n > 0 {
					mu.Lock()
					diff[artifact] = true
					mu.Unlock()
				}
				if err != nil && !a.spoiled(err) {
					return fmt.Errorf("%s: %w", artifact, err)
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// remembered lies in the scratch directory once a restore has seen everything as it should be, or somebody
// else writing: what differs later is not the restore's.
const remembered = "arangodb-restored.json"

func remember(run plugins.Run) error {
	if run.Scratch == "" {
		return nil
	}
	b, err := json.Marshal(map[string]any{"epoch": run.Epoch, "operation": run.Operation})
	if err == nil {
		err = os.WriteFile(filepath.Join(run.Scratch, remembered), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember what was restored: %w", err)
	}
	return nil
}

func recall(run plugins.Run) (bool, error) {
	if run.Scratch == "" {
		return false, nil
	}
	b, err := os.ReadFile(filepath.Join(run.Scratch, remembered))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("recall what was restored: %w", err)
	}
	var m struct{ Epoch uint64 }
	if err := json.Unmarshal(bytes.TrimSpace(b), &m); err != nil {
		return false, fmt.Errorf("recall what was restored: %s: %w", remembered, err)
	}
	return m.Epoch == run.Epoch, nil
}
