package mariadb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// restorer is one attempt of a restore.
type restorer struct {
	s       *session
	run     plugins.Run
	r       plugins.ArtifactReader
	w       *writer
	a       *assessment
	schemas []string // of the backup, sorted: index = number of the shadow schema
	rows    atomic.Int64
	bytes   atomic.Int64
	total   int64

	mu     sync.Mutex
	deltas []*delta  // tables of which single rows are changed
	swap   []*object // tables whose shadow is swapped in
}

// Restore makes the live data equal to the artifacts. Rows of changed tables
// are loaded into shadow schemas and verified there; one RENAME publishes
// them; then the other definitions follow. Killed before the RENAME, the old
// data is whole; killed after it, the next attempt finds what is left to do.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.version, Consistency: "tables with few changed rows changed in one transaction each, other changed tables published by one RENAME, then the other definitions"}
	if inPlace(run) {
		rep.Consistency = "in place: changed tables replaced one by one"
	}
	a, err := s.assess(ctx, run, r, false)
	if err != nil {
		return rep, classify(ctx, err)
	}
	rep.Unchanged, rep.Removed = len(a.same), len(a.extra)
	rep.Inexact = a.live.inexact()
	if err := s.pass(ctx, run); err != nil || a.nothing() {
		return rep, classify(ctx, err)
	}
	if why, err := s.refusals(ctx, a); err != nil {
		return rep, classify(ctx, err)
	} else if len(why) > 0 {
		return rep, fmt.Errorf("%w: %s", plugins.ErrConfig, strings.Join(why, "; "))
	}
	if free, _ := s.free(); free > 0 && s.space(a, run) > free {
		return rep, fmt.Errorf("%w: %s", plugins.ErrSpace, spaceText(s.space(a, run), free))
	}
	x := &restorer{s: s, run: run, r: r, a: a}
	if x.w, err = s.claim(ctx, run); err != nil {
		return rep, classify(ctx, err)
	}
	defer x.w.close()
	if err := x.restore(ctx); err != nil {
		x.abandon(ctx, err)
		return rep, classify(ctx, err)
	}
	rep.Artifacts = len(a.load)
	if len(a.steps) > 0 {
		rep.Artifacts++
	}
	rep.Records, rep.Bytes = x.rows.Load(), x.bytes.Load()
	return rep, nil
}

func (x *restorer) restore(ctx context.Context) error {
	if err := x.s.stopEvents(ctx); err != nil {
		return err
	}
	for _, o := range x.a.want.sorted() {
		if o.Kind == kindSchema {
			x.schemas = append(x.schemas, o.Name)
		}
	}
	x.schemas = append(x.schemas, "mysql") // for the time zone tables
	slices.Sort(x.schemas)
	for _, o := range x.a.load {
		x.total += x.a.writes(o)
	}
	if err := x.sweep(ctx, true); err != nil {
		return err
	}
	var steps []string
	for _, o := range x.a.load {
		steps = append(steps, o.label())
	}
	for _, o := range x.a.extra {
		steps = append(steps, o.label())
	}
	if err := x.w.journal(ctx, x.run.Backup, append(steps, x.a.steps...)); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := x.prerequisites(ctx); err != nil {
		return err
	}
	if err := x.load(ctx); err != nil {
		return err
	}
	if err := x.publish(ctx); err != nil {
		return err
	}
	if err := x.forward(ctx); err != nil {
		return err
	}
	if err := x.sweep(ctx, false); err != nil {
		return err
	}
	if err := x.w.journal(ctx, "", nil); err != nil {
		return err
	}
	return x.w.finished(ctx)
}

// sweep drops shadow schemas, and tables for single rows: of other epochs always; of this one what a
// killed attempt moved away, and with keep=false all. A table that a killed
// attempt left aside is missing in its place and therefore loaded again.
func (x *restorer) sweep(ctx context.Context, keep bool) error {
	names, err := x.s.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		if keep && strings.HasPrefix(n, fmt.Sprintf("_cso_%d_new_", x.run.Epoch)) {
			continue
		}
		db, drop := x.w.db, "DROP DATABASE IF EXISTS "+q(n)
		if t, ok := strings.CutPrefix(n, ownSchema+"."); ok {
			db, drop = x.w.side, "DROP TABLE IF EXISTS "+qq(ownSchema, t)
		}
		if _, err := db.ExecContext(ctx, drop); err != nil {
			return fmt.Errorf("drop %s of an earlier attempt: %w", n, err)
		}
	}
	return nil
}

// abandon drops the shadows of an attempt that failed for good, so that they
// take no space; those of an attempt that was stopped are used by the next one.
func (x *restorer) abandon(ctx context.Context, cause error) {
	if ctx.Err() != nil || lost(cause) || errors.Is(cause, plugins.ErrFenced) {
		return
	}
	if !errors.Is(cause, plugins.ErrCorrupt) && !errors.Is(cause, plugins.ErrData) && !errors.Is(classify(ctx, cause), plugins.ErrSpace) {
		return
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := x.sweep(cleanup, false); err != nil {
		x.run.Log.Warn("shadow schemas are left over", "error", err)
	}
}

// prerequisites makes what tables to be loaded refer to: schemas, and
// sequences that stand in defaults.
func (x *restorer) prerequisites(ctx context.Context) error {
	for _, o := range x.a.want.sorted() {
		if x.a.live.objects[o.id()] != nil {
			continue
		}
		switch o.Kind {
		case kindSchema:
			if err := x.exec(ctx, o, string(o.DDL)); err != nil {
				return err
			}
		case kindSequence:
			if x.taken(o.Schema, o.Name) == "" {
				if err := x.sequence(ctx, o, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// taken is the kind of live object that has a name in the tables' name space.
func (x *restorer) taken(schema, name string) string {
	for _, k := range []string{kindTable, kindView, kindSequence} {
		if x.a.live.objects[(&object{Kind: k, Schema: schema, Name: name}).id()] != nil {
			return k
		}
	}
	return ""
}

// exec runs a statement that makes or changes an object.
func (x *restorer) exec(ctx context.Context, o *object, stmt string) error {
	if _, err := x.w.db.ExecContext(ctx, stmt); err != nil {
		return fmt.Errorf("restore %s: %w", o.label(), err)
	}
	return nil
}

// free is the space on the file system of data_dir, 0 when unknown.
func (s *session) free() (int64, error) {
	dir := s.member.Options["data_dir"]
	if dir == "" {
		return 0, nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("data_dir %s: %w: check the estate file", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
