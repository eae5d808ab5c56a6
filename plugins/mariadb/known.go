package mariadb

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// What a table held need not be read again while it is proven that nothing
// was written since. InnoDB numbers its transactions with one counter: a
// transaction takes a number before its first change of a row, of any table,
// and another one when it commits
// (https://mariadb.com/docs/server/server-usage/storage-engines/innodb/innodb-system-variables,
// status variable Innodb_max_trx_id). So when the counter, read while commits
// are held back, is what it was when it was last read so, no transaction has
// committed in between, whoever made it and whether or not it went to the
// binary log. This says nothing about other engines, whose tables are always read.

// stamp is the state of InnoDB on a running server. The zero value equals none.
type stamp struct {
	server  string
	started int64 // seconds of UNIX time
	counter uint64
}

func (s stamp) same(o stamp) bool {
	d := s.started - o.started // computed from the uptime, in whole seconds
	return s.server != "" && s.server == o.server && s.counter == o.counter && d >= -2 && d <= 2
}

// stamp reads the counter. It is none on a cluster, whose nodes also apply what others commit.
func (s *session) stamp(ctx context.Context, db querier) (stamp, error) {
	if s.wsrep {
		return stamp{}, nil
	}
	rows, err := table(ctx, db, "SELECT CONCAT_WS('\t',@@hostname,@@port,@@server_id,@@datadir),UNIX_TIMESTAMP()-CAST((SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='UPTIME') AS SIGNED)"+
		",(SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='INNODB_MAX_TRX_ID')")
	if err != nil {
		return stamp{}, err
	}
	started, err1 := strconv.ParseInt(rows[0][1], 10, 64)
	counter, err2 := strconv.ParseUint(rows[0][2], 10, 64)
	if err1 != nil || err2 != nil || counter == 0 {
		return stamp{}, nil // a server that does not tell
	}
	return stamp{rows[0][0], started, counter}, nil
}

// knowledge is what the tables of one server held at a stamp.
type knowledge struct {
	mu     sync.Mutex
	at     stamp
	tables map[string]knownTable
}

// knownTable is the digest of a table, as rows of a form. Where it was
// compared with an artifact and differs, it says where.
type knownTable struct {
	form   plugins.Form
	digest plugins.Digest
	want   plugins.Digest
	diff   *difference
}

// knowledge of the server that a session is connected to; it outlives the session.
func (p *Plugin) knowledge(server string) *knowledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[string]*knowledge{}
	}
	k := p.known[server]
	if k == nil {
		k = &knowledge{}
		p.known[server] = k
	}
	return k
}

// note remembers a table as it was at a stamp, and forgets what was known of another one.
func (k *knowledge) note(at stamp, of *tableInfo, name string, t knownTable) {
	if at.server == "" || of == nil || !of.innodb() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.at.same(at) {
		k.at, k.tables = at, map[string]knownTable{}
	}
	k.tables[name] = t
}

// of gives what a table holds at a stamp, if that is known.
func (k *knowledge) of(at stamp, name string, form plugins.Form) (knownTable, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.tables[name]
	return t, ok && k.at.same(at) && t.form == form
}

// claimCost is how many numbers of InnoDB's counter the claim of an epoch takes: one transaction.
const claimCost = 2

// passOn is pass that keeps what is known: where the counter moved by the
// claim's own transaction and by nothing else, tables are as they were.
func (s *session) passOn(ctx context.Context, run plugins.Run) error {
	// An earlier attempt of this run has claimed it: nothing is written, so that no number is ours.
	if epoch, err := s.claimed(ctx); err == nil && epoch == run.Epoch {
		return nil
	}
	before, err := s.stamp(ctx, s.db)
	if err != nil {
		return err
	}
	if err := s.pass(ctx, run); err != nil {
		if errors.Is(err, plugins.ErrFenced) || ctx.Err() != nil {
			return err
		}
		run.Log.Warn("the server cannot be claimed before the safety backup", "why", err) // the restore claims it or says why not
		return nil
	}
	after, err := s.stamp(ctx, s.db)
	if err != nil {
		return err
	}
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	ours := before
	ours.counter += claimCost
	if s.known.at.same(before) && ours.same(after) {
		s.known.at = after
	}
	return nil
}

// still starts snapshots on all connections at one point and gives its stamp.
// It is none when that point cannot be had at once; then the connections read
// whatever is committed. The caller ends the snapshots with moving.
func (s *session) still(ctx context.Context, conns []*sql.Conn) stamp {
	if s.wsrep {
		return stamp{}
	}
	db, err := newPool(s.cfg, readerSetup, nil) // what closes the gate is closed itself
	if err != nil {
		return stamp{}
	}
	defer db.Close()
	p := &pin{s: s, db: db, conns: conns}
	for _, c := range conns {
		err = errors.Join(err, mark(ctx, c))
	}
	if err == nil {
		err = p.window(ctx, nil)
	}
	if err != nil {
		moving(conns)
		return stamp{}
	}
	return p.stamp
}

// moving ends the snapshots of still.
func moving(conns []*sql.Conn) {
	for _, c := range conns {
		if !calm(c) {
			_ = c.Raw(func(any) error { return errBadConn }) // closing it ends the snapshot too
		}
	}
}
