package cassandra

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

const ledgerTable = engine.LedgerName + ".txn"

// page is the linked ledger's row, written as an application does: by an ordinary role, which a fence of the product that was
// left behind would stop. A session with one node does not come back by itself once that node was killed.
type page struct {
	member engine.Member
	mu     sync.Mutex
	c      *gocql.Session // nil: to be opened
}

// OpenLedger connects to the first node and makes the keyspace, with a copy on every node.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	p := &page{member: members[0]}
	c, err := p.session(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range []string{
		fmt.Sprintf("CREATE KEYSPACE IF NOT EXISTS %s WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': %d}", engine.LedgerName, len(members)),
		"CREATE TABLE IF NOT EXISTS " + ledgerTable + " (id int PRIMARY KEY, n bigint)",
	} {
		if err := c.Query(s).WithContext(ctx).Exec(); err != nil {
			c.Close()
			return nil, fmt.Errorf("make the ledger: %w", err)
		}
	}
	return p, nil
}

func (p *page) session(ctx context.Context) (*gocql.Session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		c, err := dial(ctx, p.member, Backup, p.member.Options["backup_password_file"])
		if err != nil {
			return nil, err
		}
		p.c = c
	}
	return p.c, nil
}

// try makes one call, and drops the session when it fails.
func (p *page) try(ctx context.Context, call func(*gocql.Session) error) error {
	c, err := p.session(ctx)
	if err != nil {
		return err
	}
	if err = call(c); err != nil && !errors.Is(err, gocql.ErrNotFound) {
		err = errors.Join(err, p.Close())
	}
	return err
}

// Record waits for most nodes: of three snapshots two at least hold what was recorded before them.
func (p *page) Record(ctx context.Context, n int64) error {
	return p.try(ctx, func(c *gocql.Session) error {
		return c.Query("INSERT INTO "+ledgerTable+" (id, n) VALUES (1, ?)", n).Consistency(gocql.Quorum).WithContext(ctx).Exec()
	})
}

func (p *page) Recorded(ctx context.Context) (n int64, err error) {
	err = p.try(ctx, func(c *gocql.Session) error {
		return c.Query("SELECT n FROM " + ledgerTable + " WHERE id = 1").Consistency(gocql.All).WithContext(ctx).Scan(&n)
	})
	if errors.Is(err, gocql.ErrNotFound) {
		return 0, nil
	}
	return n, err
}

func (p *page) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c != nil {
		p.c.Close()
		p.c = nil
	}
	return nil
}
