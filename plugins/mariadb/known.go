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
	safety struct { // the last safety backup
		pin string
		at  stamp
	}
}

// knownTable is the digest of a table, as rows of a form. Where it was
// compared with an artifact, of digest want, and differs, it says where.
type knownTable struct {
	form   plugins.Form
	digest plugins.Digest
	want   plugins.Digest
	diff   *difference
	pieces []plugins.PieceInfo // of that artifact; none where they are too many
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

// writeCost is how many numbers of InnoDB's counter a transaction takes that has changed a row.
const writeCost = 2

// own makes a write of the product's, one transaction, and keeps what is
// known: where the counter moved by this write and by nothing else, tables
// are as they were, apart from what the write did to them: changed, which may
// be nil, says that. write says how many rows it wrote; one that wrote none
// takes no number that could be relied on.
func (s *session) own(ctx context.Context, changed func(tables map[string]knownTable), write func() (int64, error)) error {
	before, err := s.stamp(ctx, s.db)
	if err != nil {
		return err
	}
	n, err := write()
	if err != nil || n == 0 {
		return err
	}
	after, err := s.stamp(ctx, s.db)
	if err != nil {
		return err
	}
	s.known.follow(before, after, changed)
	return nil
}

// affected is for own what a statement did.
func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// follow takes what is known at a stamp over to a later one, if nothing but
// one write of the product's lies between them.
func (k *knowledge) follow(before, after stamp, changed func(map[string]knownTable)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if changed != nil {
		k.safety.at = stamp{} // what the safety backup says is no longer so
	}
	ours := before
	ours.counter += writeCost
	if !ours.same(after) {
		return
	}
	if k.safety.at.same(before) {
		k.safety.at = after
	}
	if k.at.same(before) {
		if k.at = after; changed != nil {
			changed(k.tables)
		}
	}
}

// passOn is pass before the safety backup, so that a server that cannot be claimed is found by the restore.
func (s *session) passOn(ctx context.Context, run plugins.Run) error {
	err := s.pass(ctx, run)
	if err == nil || errors.Is(err, plugins.ErrFenced) || ctx.Err() != nil {
		return err
	}
	run.Log.Warn("the server cannot be claimed before the safety backup", "why", err) // the restore claims it or says why not
	return nil
}

// pinned remembers at which stamp a safety backup is taken.
func (k *knowledge) pinned(id string, at stamp) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.safety.pin, k.safety.at = id, at
}

// told notes what a safety backup says of a table, if it is the last one taken.
func (k *knowledge) told(i plugins.ArtifactInfo, of *tableInfo) {
	k.mu.Lock()
	at := k.safety.at
	if i.Pin == "" || i.Pin != k.safety.pin {
		at = stamp{}
	}
	k.mu.Unlock()
	k.note(at, of, i.Name, knownTable{form: i.Form, digest: i.Digest})
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
