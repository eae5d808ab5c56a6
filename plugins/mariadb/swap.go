package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// publish swaps all loaded tables in with one RENAME, which also moves away
// the tables that are to disappear. The server does it wholly or not at all,
// also when it is killed (10.6 and newer).
func (x *restorer) publish(ctx context.Context) error {
	conn, err := x.w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := x.guard(ctx, conn); err != nil {
		return err
	}
	if err := x.change(ctx, conn); err != nil {
		return err
	}
	if inPlace(x.run) {
		if err := x.dropLost(ctx); err != nil {
			return err
		}
		for _, o := range x.a.extra {
			if err := x.exec(ctx, o, "DROP TABLE IF EXISTS "+qq(o.Schema, o.Name)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := x.dropLost(ctx); err != nil {
		return err
	}
	var away, in []string
	move := func(o *object) {
		if _, ok := slices.BinarySearch(x.schemas, o.Schema); ok {
			away = append(away, qq(o.Schema, o.Name)+" TO "+qq(x.old(o), o.Name))
		}
	}
	moved := map[string]bool{}
	for _, o := range x.swap {
		if x.a.live.objects[o.id()] != nil {
			move(o)
			moved[o.artifact()] = true
		} else if err := x.dropNamesake(ctx, o); err != nil {
			return err
		}
		in = append(in, qq(x.shadow(o), o.Name)+" TO "+qq(o.Schema, o.Name))
	}
	for _, o := range x.a.extra {
		move(o)
		moved[o.artifact()] = true
	}
	if len(away)+len(in) == 0 {
		return nil
	}
	for i := range x.schemas {
		if _, err := conn.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+q(oldSchema(x.run.Epoch, i))+" CHARACTER SET utf8mb4"); err != nil {
			return err
		}
	}
	// A table with triggers cannot change its schema; they come back in forward.
	for _, o := range x.a.live.sorted() {
		if o.Kind == kindTrigger && moved[tableArtifact(o.Schema, o.Table)] {
			if _, err := conn.ExecContext(ctx, "DROP TRIGGER IF EXISTS "+qq(o.Schema, o.Name)); err != nil {
				return fmt.Errorf("drop %s: %w", o.label(), err)
			}
		}
	}
	if err := x.w.check(ctx, conn); err != nil {
		return err
	}
	x.run.Report(plugins.Status{Phase: "publish", Bytes: x.bytes.Load(), Total: x.total})
	if _, err := conn.ExecContext(ctx, "RENAME TABLE "+strings.Join(append(away, in...), ", ")); err != nil {
		return fmt.Errorf("publish %d tables: %w", len(in), err)
	}
	return nil
}

// change changes single rows. A table that is not as expected is loaded as a
// whole after all.
func (x *restorer) change(ctx context.Context, conn *sql.Conn) error {
	if len(x.deltas) == 0 {
		return nil
	}
	// Unlike a shadow, this table may have rows that are not the backup's.
	// Other servers do not have the tables with the rows to go and to come.
	if _, err := conn.ExecContext(ctx, "SET SESSION unique_checks=1, binlog_format='ROW'"); err != nil {
		return err
	}
	for _, d := range x.deltas {
		fits, err := d.apply(ctx, conn)
		if err != nil {
			return fmt.Errorf("change rows of %s: %w", d.l.o.label(), err)
		}
		if fits {
			continue
		}
		if err := x.wholeAfterAll(ctx, d.l); err != nil {
			return fmt.Errorf("load table %s.%s: %w", d.l.o.Schema, d.l.o.Name, err)
		}
	}
	return nil
}

// guard takes the publish lock, which a killed connection gives up only when
// its statement has ended, and proves the claim.
func (x *restorer) guard(ctx context.Context, conn *sql.Conn) error {
	got, err := value(ctx, conn, "SELECT GET_LOCK('cso_backup/publish',60)")
	if err != nil {
		return err
	}
	if got != "1" {
		return fmt.Errorf("another attempt is publishing: %w: wait for it to end", plugins.ErrUnavailable)
	}
	return x.w.check(ctx, conn)
}

// dropLost removes tables that the server cannot open, and so cannot rename:
// nothing of them can be kept.
func (x *restorer) dropLost(ctx context.Context) error {
	for _, o := range x.a.live.lost {
		if err := x.exec(ctx, o, "DROP TABLE IF EXISTS "+qq(o.Schema, o.Name)); err != nil {
			return err
		}
	}
	return nil
}

// dropNamesake makes way for a table where the live server has a view or sequence.
func (x *restorer) dropNamesake(ctx context.Context, o *object) error {
	switch x.taken(o.Schema, o.Name) {
	case kindView:
		return x.exec(ctx, o, "DROP VIEW IF EXISTS "+qq(o.Schema, o.Name))
	case kindSequence:
		return x.exec(ctx, o, "DROP SEQUENCE IF EXISTS "+qq(o.Schema, o.Name))
	}
	return nil
}

// dropLive removes the live table before its copy is loaded (in place).
func (x *restorer) dropLive(ctx context.Context, o *object) error {
	if err := x.w.check(ctx, x.w.db); err != nil {
		return err
	}
	if err := x.dropNamesake(ctx, o); err != nil {
		return err
	}
	return x.exec(ctx, o, "DROP TABLE IF EXISTS "+qq(o.Schema, o.Name))
}

// publishOne puts one loaded table in its place (in place).
func (x *restorer) publishOne(ctx context.Context, o *object) error {
	if err := x.w.check(ctx, x.w.db); err != nil {
		return err
	}
	return x.exec(ctx, o, "RENAME TABLE "+qq(x.shadow(o), o.Name)+" TO "+qq(o.Schema, o.Name))
}
