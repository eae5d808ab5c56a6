package mariadb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Limits of what a pin may cost writers.
const (
	pinTries      = 6
	spoolLimit    = 4 << 20 // bytes of tables without snapshots that are read inside the window
	stageTimeout  = 20      // seconds after which the server itself ends an abandoned lock
	tableLockWait = 30      // seconds to wait for the read lock on large tables without snapshots
)

// errMoved: definitions changed while the snapshot was taken.
var errMoved = errors.New("definitions changed while the snapshot was taken")

// pin is a held view: one snapshot per connection, all at one point, and the
// definitions as they stood at it.
type pin struct {
	s        *session
	info     plugins.PinInfo
	db       *sql.DB     // of this pin only
	conns    []*sql.Conn // each in a transaction WITH CONSISTENT SNAPSHOT
	lock     *sql.Conn   // LOCK TABLES … READ on large tables without snapshots; nil: none
	locked   []string
	spooled  map[string][]record // rows of small tables without snapshots
	forms    map[string]bool     // spooled table is ordered
	catalog  *catalog
	accounts []record
	wayOf    string // how the point was made, in words
	warnings []string
	stamp    stamp // of the point, where the server has one

	mu       sync.Mutex
	stop     chan struct{}
	stopped  sync.WaitGroup
	released bool
}

// record is one record of an artifact.
type record struct{ key, value []byte }

// Pin takes aligned snapshots of the whole server. Commits wait for
// milliseconds; definitions are read before and after, and the pin is taken
// anew when they differ.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	if run.Operation == plugins.OpSafety {
		// The restore that follows owns the server from here on, so that its claim is not a write between
		// the safety backup and the proof.
		if err := s.passOn(ctx, run); err != nil {
			return nil, fmt.Errorf("pin %s: %w", s.member.Name, classify(ctx, err))
		}
	}
	p, err := s.pin(ctx, parallel(run), run.Operation == plugins.OpSafety)
	if err != nil {
		return nil, fmt.Errorf("pin %s: %w", s.member.Name, err)
	}
	if run.Operation == plugins.OpSafety {
		s.known.pinned(p.info.ID, p.stamp)
	}
	return p, nil
}

// pin takes the view with n connections. A safety backup takes what can be
// read (tolerant): what cannot be opened is what the restore is to mend.
func (s *session) pin(ctx context.Context, n int, tolerant bool) (*pin, error) {
	for try := 1; ; try++ {
		p, err := s.tryPin(ctx, n, tolerant)
		if err == nil {
			return p, nil
		}
		retry := errors.Is(err, errMoved) || number(err) == erLockWait || number(err) == erNoSuchTable || number(err) == erUnknownTable
		if try == pinTries || !retry || ctx.Err() != nil {
			if errors.Is(err, errMoved) {
				err = fmt.Errorf("%w %d times: %w: hold schema changes during the backup", err, try, plugins.ErrPinLost)
			}
			return nil, classify(ctx, err)
		}
		if err := plugins.Sleep(ctx, time.Duration(try)*200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (s *session) tryPin(ctx context.Context, n int, tolerant bool) (_ *pin, err error) {
	db := s.kept
	if db == nil {
		if db, err = newPool(s.cfg, readerSetup, nil); err != nil {
			return nil, err
		}
	}
	p := &pin{s: s, db: db, spooled: map[string][]record{}, forms: map[string]bool{}, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	for range n {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		p.conns = append(p.conns, c)
	}
	for _, c := range p.conns { // each keeps definitions of what it has read from being changed
		if err := mark(ctx, c); err != nil {
			return nil, err
		}
	}
	before, err := readCatalog(ctx, queriers(p.conns))
	if err != nil {
		return nil, err
	}
	if err := before.details(ctx, p.conns[0], nil); err != nil {
		return nil, err
	}
	if len(before.broken) > 0 && tolerant {
		p.warnings = append(p.warnings, "not in this safety backup, because the server cannot open them: "+brief(before.broken))
	} else if len(before.broken) > 0 {
		return nil, fmt.Errorf("%w: the server cannot open %s: repair it (CHECK TABLE, REPAIR TABLE) or drop it", plugins.ErrData, strings.Join(before.broken, "; "))
	}
	accounts, err := readAccounts(ctx, p.conns[0])
	if err != nil {
		return nil, err
	}
	small, large := before.withoutSnapshot()
	if err := p.lockTables(ctx, large); err != nil {
		return nil, err
	}
	if err := p.window(ctx, small); err != nil {
		return nil, err
	}
	after, err := readCatalog(ctx, queriers(p.conns))
	if err != nil {
		return nil, err
	}
	again, err := readAccounts(ctx, p.conns[0])
	if err != nil {
		return nil, err
	}
	if !sameDefinitions(before, after) || !sameRecords(accounts, again) {
		return nil, errMoved
	}
	after.tables = before.tables
	p.catalog, p.accounts = after, accounts
	p.keepAlive()
	return p, nil
}

// mark takes a slot, so that a later operation can end what a frozen process left open.
func mark(ctx context.Context, c *sql.Conn) error {
	return c.Raw(func(dc any) error { return takeSlot(ctx, dc.(*link), "p") })
}

// withoutSnapshot lists the tables whose engine has no snapshots: those small
// enough to be read inside the window, and the others.
func (c *catalog) withoutSnapshot() (small, large []*tableInfo) {
	var all []*tableInfo
	for _, t := range c.tables {
		if t.rows && !t.transactional {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *tableInfo) int { return int(a.bytes - b.bytes) })
	var sum int64
	for _, t := range all {
		if sum += t.bytes + 1024; sum <= spoolLimit {
			small = append(small, t)
		} else {
			large = append(large, t)
		}
	}
	return small, large
}

// lockTables holds read locks on tables that have no snapshots and are too
// large for the window; their writers wait until these tables are copied.
func (p *pin) lockTables(ctx context.Context, large []*tableInfo) (err error) {
	if len(large) == 0 {
		return nil
	}
	if p.lock, err = p.db.Conn(ctx); err != nil {
		return err
	}
	if err := mark(ctx, p.lock); err != nil {
		return err
	}
	var names []string
	for _, t := range large {
		names = append(names, qq(t.schema, t.name)+" READ")
		p.locked = append(p.locked, t.schema+"."+t.name)
	}
	slices.Sort(p.locked)
	if _, err := p.lock.ExecContext(ctx, fmt.Sprintf("SET SESSION lock_wait_timeout=%d, wait_timeout=%d", tableLockWait, 3*stageTimeout)); err != nil {
		return err
	}
	_, err = p.lock.ExecContext(ctx, "LOCK TABLES "+strings.Join(names, ","))
	return err
}

// window holds commits back for the moment in which all snapshots start.
func (p *pin) window(ctx context.Context, small []*tableInfo) error {
	w, err := p.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := mark(ctx, w); err != nil {
		return err
	}
	// The server ends the lock by itself if this process stops right here.
	if _, err := w.ExecContext(ctx, fmt.Sprintf("SET SESSION wait_timeout=%d, lock_wait_timeout=5", stageTimeout)); err != nil {
		return err
	}
	if p.s.wsrep {
		if _, err := w.ExecContext(ctx, "SET SESSION wsrep_sync_wait=1"); err != nil {
			return err
		}
	}
	end, err := p.closeGate(ctx, w)
	if err != nil {
		return err
	}
	start := time.Now()
	err = p.insideWindow(ctx, w, small)
	held := time.Since(start)
	// Ended even when ctx is cancelled; should that fail too, closing the connection ends it.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, e := w.ExecContext(cleanup, end); e != nil {
		_ = w.Raw(func(any) error { return errBadConn })
		return errors.Join(err, e)
	}
	if err == nil && held > stageTimeout*time.Second/2 {
		return errMoved // the server may have let go before the last snapshot
	}
	return err
}

// closeGate stops commits: BACKUP STAGE, or FLUSH TABLES WITH READ LOCK where
// the server refuses that. It returns the statement that ends it.
func (p *pin) closeGate(ctx context.Context, w *sql.Conn) (end string, err error) {
	if _, err = w.ExecContext(ctx, "BACKUP STAGE START"); err == nil {
		if _, err = w.ExecContext(ctx, "BACKUP STAGE BLOCK_COMMIT"); err == nil {
			p.wayOf = "BACKUP STAGE BLOCK_COMMIT"
			return "BACKUP STAGE END", nil
		}
		_ = w.Raw(func(any) error { return errBadConn }) // closes the connection, which ends the stage
		return "", err
	}
	if number(err) == erLockWait || lost(err) {
		return "", err
	}
	if _, err = w.ExecContext(ctx, "FLUSH TABLES WITH READ LOCK"); err != nil {
		return "", err
	}
	p.wayOf = "FLUSH TABLES WITH READ LOCK"
	return "UNLOCK TABLES", nil
}

func (p *pin) insideWindow(ctx context.Context, w *sql.Conn, small []*tableInfo) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, conn := range p.conns {
		g.Go(func() error {
			_, err := conn.ExecContext(gctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p.info.At = time.Now().UTC()
	var err error
	if p.info.Position, err = p.s.position(ctx, p.conns[0]); err != nil {
		return err
	}
	if p.stamp, err = p.s.stamp(ctx, p.conns[0]); err != nil {
		return err
	}
	for _, t := range small {
		if err := p.spool(ctx, w, t); err != nil {
			return err
		}
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	p.info.ID = p.info.At.Format("20060102T150405.000000Z") + "-" + hex.EncodeToString(id[:])
	return nil
}

// spool reads a small table without snapshots into memory.
func (p *pin) spool(ctx context.Context, w *sql.Conn, t *tableInfo) error {
	name := tableArtifact(t.schema, t.name)
	read := func(pl rowPlan) error {
		p.spooled[name], p.forms[name] = []record{}, len(pl.key) > 0
		return readRows(ctx, w, pl, func(k, v []byte) error {
			p.spooled[name] = append(p.spooled[name], record{slices.Clone(k), slices.Clone(v)})
			return nil
		})
	}
	err := read(t.plan(false))
	if errors.Is(err, errOrder) {
		err = read(t.plan(true))
	}
	return err
}

// position is the GTID, binary log or Galera position of the point.
func (s *session) position(ctx context.Context, db querier) (string, error) {
	rows, err := table(ctx, db, "SELECT VARIABLE_NAME,VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN ('WSREP_CLUSTER_STATE_UUID','WSREP_LAST_COMMITTED')"+
		" UNION ALL SELECT VARIABLE_NAME,VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME IN ('BINLOG_SNAPSHOT_FILE','BINLOG_SNAPSHOT_POSITION')"+
		" UNION ALL SELECT 'GTID',@@GLOBAL.gtid_binlog_pos")
	if err != nil {
		return "", err
	}
	m := map[string]string{}
	for _, r := range rows {
		m[r[0]] = r[1]
	}
	var out []string
	if m["GTID"] != "" {
		out = append(out, "gtid "+m["GTID"])
	}
	if m["BINLOG_SNAPSHOT_FILE"] != "" {
		out = append(out, "binlog "+m["BINLOG_SNAPSHOT_FILE"]+":"+m["BINLOG_SNAPSHOT_POSITION"])
	}
	if s.wsrep {
		out = append(out, "wsrep "+m["WSREP_CLUSTER_STATE_UUID"]+":"+m["WSREP_LAST_COMMITTED"])
	}
	return strings.Join(out, ", "), nil
}

// keepAlive keeps the read locks' connection from its short time-out, which
// is there for the case that this process is frozen or its host is lost.
func (p *pin) keepAlive() {
	if p.lock == nil {
		return
	}
	lock := p.lock
	p.stopped.Go(func() {
		t := time.NewTicker(stageTimeout * time.Second / 2)
		defer t.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-t.C:
				ctx, cancel := context.WithTimeout(context.Background(), stageTimeout*time.Second)
				_, _ = lock.ExecContext(ctx, "DO 1") // a lost lock is noticed by unlock
				cancel()
			}
		}
	})
}

// unlock ends the read locks and proves that they were held until now.
func (p *pin) unlock(ctx context.Context) error {
	if p.lock == nil {
		return nil
	}
	_, err := p.lock.ExecContext(ctx, "UNLOCK TABLES")
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: read locks ended early: %w", plugins.ErrPinLost, err)
	}
	return err
}

// Info identifies the pin.
func (p *pin) Info() plugins.PinInfo { return p.info }

// Release ends the snapshots and all locks.
func (p *pin) Release(context.Context) error {
	p.release()
	return nil
}

func (p *pin) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return
	}
	p.released = true
	close(p.stop)
	p.stopped.Wait()
	for _, c := range append(p.conns, p.lock) {
		if c == nil {
			continue
		}
		if p.db != p.s.kept || !calm(c) {
			// Closing a connection ends its transaction and locks in the server.
			_ = c.Raw(func(any) error { return errBadConn })
		}
		c.Close()
	}
	if p.db != p.s.kept {
		p.db.Close()
	}
}

// calm ends what a connection holds without closing it.
func calm(c *sql.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, stmt := range []string{"ROLLBACK", "UNLOCK TABLES", "DO RELEASE_ALL_LOCKS()"} {
		if _, err := c.ExecContext(ctx, stmt); err != nil {
			return false
		}
	}
	return true
}
