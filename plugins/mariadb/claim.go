package mariadb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	claimTable   = "`" + ownSchema + "`.`claim`"
	journalTable = "`" + ownSchema + "`.`journal`"
)

// writer is the right to write on a server: the newest claim in the claim
// table. Every connection of its pool first takes a slot and then checks the
// claim; a later claimant first writes its claim and then ends all slots.
// So no connection of an older attempt can write once claim has returned.
type writer struct {
	s     *session
	db    *sql.DB
	side  *sql.DB // for tables of the product's own that other servers are not to hear of; it may be db
	token string
}

// claim takes the right to write for the run, ErrFenced when a newer epoch has it.
func (s *session) claim(ctx context.Context, run plugins.Run) (*writer, error) {
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	w := &writer{s: s, token: hex.EncodeToString(id[:])}
	if err := s.ownSchema(ctx); err != nil {
		return nil, err
	}
	if err := s.raise(ctx, run.Epoch, w.token, "''"); err != nil {
		return nil, err
	}
	if err := w.check(ctx, s.db); err != nil {
		return nil, err
	}
	if err := killSlots(ctx, s.db, "w"); err != nil {
		return nil, err
	}
	var err error
	guard := func(ctx context.Context, c driver.Conn) error {
		if err := takeSlot(ctx, c, "w"); err != nil {
			return err
		}
		row, err := rawRow(ctx, c, "SELECT token FROM "+claimTable+" WHERE id=1")
		if err != nil {
			return err
		}
		if row[0] == nil || *row[0] != w.token {
			return errTaken
		}
		return nil
	}
	if w.db, err = newPool(s.cfg, writerSetup, guard); err != nil {
		return nil, err
	}
	if w.side = w.db; !s.wsrep {
		w.side, err = newPool(s.cfg, writerSetup+", sql_log_bin=0", guard)
	}
	return w, err
}

// raise writes the claim of an epoch unless a newer one is there. position is
// the SQL expression for where the server stands.
func (s *session) raise(ctx context.Context, epoch uint64, token, position string) error {
	e := strconv.FormatUint(epoch, 10)
	err := s.own(ctx, nil, func() (int64, error) {
		return affected(s.local.ExecContext(ctx, "INSERT INTO "+claimTable+" (id,epoch,token,since,position) VALUES (1,"+e+",'"+token+"',UTC_TIMESTAMP(6),"+position+")"+
			" ON DUPLICATE KEY UPDATE token=IF(epoch<=VALUES(epoch),VALUES(token),token), since=IF(epoch<=VALUES(epoch),VALUES(since),since),"+
			" position=IF(epoch<=VALUES(epoch),VALUES(position),position), epoch=GREATEST(epoch,VALUES(epoch))"))
	})
	if err != nil {
		return fmt.Errorf("claim the server for epoch %s: %w", e, err)
	}
	return nil
}

// pass lets an epoch that has nothing to write shut out older ones all the same.
func (s *session) pass(ctx context.Context, run plugins.Run) error {
	epoch, err := s.claimed(ctx)
	if err != nil || epoch == run.Epoch {
		return err
	}
	if epoch > run.Epoch {
		return fmt.Errorf("epoch %d: %w: epoch %d holds the server", run.Epoch, plugins.ErrFenced, epoch)
	}
	if err := s.ownSchema(ctx); err != nil {
		return err
	}
	if err := s.raise(ctx, run.Epoch, "", "@@GLOBAL.gtid_binlog_pos"); err != nil {
		return err
	}
	return killSlots(ctx, s.db, "w")
}

// finished notes the server's position after the run's last write. It is not
// written to the binary log, so the position stays what it says.
func (w *writer) finished(ctx context.Context) error {
	return w.s.own(ctx, nil, func() (int64, error) {
		return affected(w.s.local.ExecContext(ctx, "UPDATE "+claimTable+" SET position=@@GLOBAL.gtid_binlog_pos WHERE id=1 AND token='"+w.token+"'"))
	})
}

// overtaken says whether somebody wrote after the run's last write. Without a
// binary log that cannot be known, and the answer is no.
func (s *session) overtaken(ctx context.Context, run plugins.Run) (bool, error) {
	if epoch, err := s.claimed(ctx); err != nil || epoch != run.Epoch || epoch == 0 {
		return false, err
	}
	v, err := value(ctx, s.db, "SELECT position<>'' AND position<>@@GLOBAL.gtid_binlog_pos FROM "+claimTable+" WHERE id=1")
	return v == "1", err
}

var errTaken = fmt.Errorf("the server: %w: this attempt writes no more", plugins.ErrFenced)

// check proves that the claim is still ours.
func (w *writer) check(ctx context.Context, db querier) error {
	token, err := value(ctx, db, "SELECT token FROM "+claimTable+" WHERE id=1")
	if err != nil {
		return err
	}
	if token != w.token {
		return errTaken
	}
	return nil
}

func (w *writer) close() {
	for _, db := range []*sql.DB{w.db, w.side} {
		if db != nil {
			db.Close()
		}
	}
}

// noStatistics keeps the server from counting what is in these tables, some
// seconds after each write: it writes down the result, which is a transaction
// that nobody can tell from somebody else's (see known.go).
const noStatistics = " STATS_PERSISTENT=0 STATS_AUTO_RECALC=0"

// ownSchema makes the product's schema and tables if they are missing. They
// speak of this server's connections, so nothing about them is replicated.
func (s *session) ownSchema(ctx context.Context) error {
	if s.local == nil {
		setup := readerSetup + ", sql_log_bin=0"
		if s.wsrep {
			setup = readerSetup // a node of a cluster must know what the others were told
		}
		db, err := newPool(s.cfg, setup, nil)
		if err != nil {
			return err
		}
		db.SetMaxOpenConns(2)
		s.local = db
	}
	n, err := value(ctx, s.db, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='"+ownSchema+"' AND TABLE_NAME IN ('claim','journal') AND LOWER(CREATE_OPTIONS) LIKE '%stats_persistent=0%'")
	if err != nil || n == "2" {
		return err
	}
	for _, stmt := range []string{
		"CREATE DATABASE IF NOT EXISTS `" + ownSchema + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		"CREATE TABLE IF NOT EXISTS " + claimTable + " (id TINYINT PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, token VARCHAR(64) NOT NULL, since DATETIME(6) NOT NULL, position TEXT NOT NULL) ENGINE=InnoDB" + noStatistics,
		"CREATE TABLE IF NOT EXISTS " + journalTable + " (name VARCHAR(190) PRIMARY KEY, value LONGTEXT NOT NULL) ENGINE=InnoDB" + noStatistics,
		"ALTER TABLE " + claimTable + noStatistics, // of a version that did not say so
		"ALTER TABLE " + journalTable + noStatistics,
	} {
		if _, err := s.local.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("make the product's schema: %w", err)
		}
	}
	return nil
}

// Quiet ends what attempts of lower epochs left running on the server:
// writers, and pins with the locks they may hold.
func (s *session) Quiet(ctx context.Context, run plugins.Run) error {
	epoch, err := s.claimed(ctx)
	if err != nil {
		return classify(ctx, err)
	}
	if epoch > run.Epoch {
		return fmt.Errorf("epoch %d: %w: epoch %d holds the server", run.Epoch, plugins.ErrFenced, epoch)
	}
	return classify(ctx, killSlots(ctx, s.db, "w", "p"))
}

// claimed is the newest epoch that wrote here, 0 for none.
func (s *session) claimed(ctx context.Context) (uint64, error) {
	v, err := value(ctx, s.db, "SELECT epoch FROM "+claimTable+" WHERE id=1")
	if n := number(err); n == erNoSuchTable || n == 1049 {
		return 0, nil
	}
	if err != nil || v == "" {
		return 0, err
	}
	return strconv.ParseUint(v, 10, 64)
}

// lend sets a global variable and notes in the journal what it was, unless it
// has that value or an earlier attempt has already lent it.
func (s *session) lend(ctx context.Context, variable, from, to string) error {
	v, err := value(ctx, s.db, "SELECT @@GLOBAL."+variable)
	if err != nil || v != from {
		return err
	}
	if err := s.ownSchema(ctx); err != nil {
		return err
	}
	err = s.own(ctx, nil, func() (int64, error) {
		return affected(s.local.ExecContext(ctx, "INSERT INTO "+journalTable+" VALUES ('"+variable+"','"+from+"') ON DUPLICATE KEY UPDATE value=VALUES(value)"))
	})
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "SET GLOBAL "+variable+"="+to)
	return err
}

// giveBack undoes lend, whoever lent it.
func (s *session) giveBack(ctx context.Context, variable string) error {
	v, err := value(ctx, s.db, "SELECT value FROM "+journalTable+" WHERE name='"+variable+"'")
	if n := number(err); n == erNoSuchTable || n == 1049 || (err == nil && v == "") {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.ownSchema(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, "SET GLOBAL "+variable+"="+v); err != nil {
		return err
	}
	return s.own(ctx, nil, func() (int64, error) {
		return affected(s.local.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE name='"+variable+"'"))
	})
}

// stopEvents switches the event scheduler off, when it is on.
func (s *session) stopEvents(ctx context.Context) error {
	return s.lend(ctx, "event_scheduler", "ON", "OFF")
}

const trustVariable = "log_bin_trust_function_creators"

// trusting runs f while the server accepts functions that do not say whether
// they are deterministic.
func (s *session) trusting(ctx context.Context, f func() error) error {
	if err := s.lend(ctx, trustVariable, "0", "1"); err != nil {
		return err
	}
	err := f()
	if e := s.giveBack(context.WithoutCancel(ctx), trustVariable); err == nil {
		err = e
	}
	return err
}

// startEvents gives back what stopEvents, or a killed restore, has lent.
func (s *session) startEvents(ctx context.Context) error {
	if err := s.giveBack(ctx, trustVariable); err != nil {
		return err
	}
	return s.giveBack(ctx, "event_scheduler")
}

// journal notes what the restore is about to change, in one transaction; an
// empty list clears it.
func (w *writer) journal(ctx context.Context, backup string, steps []string) error {
	if err := w.check(ctx, w.s.local); err != nil {
		return err
	}
	return w.s.own(ctx, nil, func() (int64, error) { return w.writeJournal(ctx, backup, steps) })
}

// writeJournal says how many rows it wrote.
func (w *writer) writeJournal(ctx context.Context, backup string, steps []string) (int64, error) {
	tx, err := w.s.local.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	gone, err := affected(tx.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE name LIKE 'step/%' OR name='restore'"))
	if err != nil {
		return 0, err
	}
	var rows []string
	if backup != "" {
		rows = append(rows, "('restore',"+lit(backup)+")")
	}
	for i, st := range steps {
		rows = append(rows, fmt.Sprintf("('step/%06d',%s)", i, lit(st)))
	}
	for part := range slices.Chunk(rows, 500) {
		if _, err := tx.ExecContext(ctx, "INSERT INTO "+journalTable+" VALUES "+strings.Join(part, ",")); err != nil {
			return 0, err
		}
	}
	return gone + int64(len(rows)), tx.Commit()
}
