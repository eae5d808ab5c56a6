package mariadb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

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
	epoch := strconv.FormatUint(run.Epoch, 10)
	if _, err := s.db.ExecContext(ctx, "INSERT INTO "+claimTable+" (id,epoch,token,since) VALUES (1,"+epoch+",'"+w.token+"',UTC_TIMESTAMP(6))"+
		" ON DUPLICATE KEY UPDATE token=IF(epoch<=VALUES(epoch),VALUES(token),token), since=IF(epoch<=VALUES(epoch),VALUES(since),since), epoch=GREATEST(epoch,VALUES(epoch))"); err != nil {
		return nil, fmt.Errorf("claim the server for epoch %s: %w", epoch, err)
	}
	if err := w.check(ctx, s.db); err != nil {
		return nil, err
	}
	if err := killSlots(ctx, s.db, "w"); err != nil {
		return nil, err
	}
	var err error
	w.db, err = newPool(s.cfg, writerSetup, func(ctx context.Context, c driver.Conn) error {
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
	})
	return w, err
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
	if w.db != nil {
		w.db.Close()
	}
}

// ownSchema makes the product's schema and tables if they are missing.
func (s *session) ownSchema(ctx context.Context) error {
	n, err := value(ctx, s.db, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA='"+ownSchema+"' AND TABLE_NAME IN ('claim','journal')")
	if err != nil || n == "2" {
		return err
	}
	for _, stmt := range []string{
		"CREATE DATABASE IF NOT EXISTS `" + ownSchema + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		"CREATE TABLE IF NOT EXISTS " + claimTable + " (id TINYINT PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, token VARCHAR(64) NOT NULL, since DATETIME(6) NOT NULL) ENGINE=InnoDB",
		"CREATE TABLE IF NOT EXISTS " + journalTable + " (name VARCHAR(190) PRIMARY KEY, value LONGTEXT NOT NULL) ENGINE=InnoDB",
	} {
		if _, err := s.db.ExecContext(ctx, stmt); err != nil {
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
		return classify(err)
	}
	if epoch > run.Epoch {
		return fmt.Errorf("epoch %d: %w: epoch %d holds the server", run.Epoch, plugins.ErrFenced, epoch)
	}
	return classify(killSlots(ctx, s.db, "w", "p"))
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

// stopEvents switches the event scheduler off and notes in the journal that it was on.
func (s *session) stopEvents(ctx context.Context) error {
	v, err := value(ctx, s.db, "SELECT @@GLOBAL.event_scheduler")
	if err != nil || v != "ON" {
		return err
	}
	if err := s.ownSchema(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, "REPLACE INTO "+journalTable+" VALUES ('event_scheduler','ON')"); err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "SET GLOBAL event_scheduler=OFF")
	return err
}

// startEvents undoes stopEvents.
func (s *session) startEvents(ctx context.Context) error {
	v, err := value(ctx, s.db, "SELECT value FROM "+journalTable+" WHERE name='event_scheduler'")
	if n := number(err); n == erNoSuchTable || n == 1049 || (err == nil && v != "ON") {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, "SET GLOBAL event_scheduler=ON"); err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE name='event_scheduler'")
	return err
}

// journal notes what will follow the swap, in order; done clears it.
func (w *writer) journal(ctx context.Context, backup string, steps []string) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE name LIKE 'step/%' OR name='restore'")
	if err == nil && backup != "" {
		_, err = conn.ExecContext(ctx, "INSERT INTO "+journalTable+" VALUES ('restore',"+lit(backup)+")")
	}
	for i, st := range steps {
		if err == nil {
			_, err = conn.ExecContext(ctx, "INSERT INTO "+journalTable+" VALUES ('"+fmt.Sprintf("step/%06d", i)+"',"+lit(st)+")")
		}
	}
	if err != nil {
		_, e := conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, e)
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

// step removes the finished entry.
func (w *writer) step(ctx context.Context, label string) error {
	_, err := w.db.ExecContext(ctx, "DELETE FROM "+journalTable+" WHERE value="+lit(label)+" AND name LIKE 'step/%'")
	return err
}
