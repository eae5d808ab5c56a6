package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

const ledgerNode = "/" + engine.LedgerName

// page is the linked ledger's node.
type page struct {
	c    *zk.Conn
	stop context.CancelFunc
}

// OpenLedger connects to the first member and makes the node.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	live, stop := context.WithCancel(context.WithoutCancel(ctx)) // until Close
	c, err := dial(live, members[0])
	if err != nil {
		stop()
		return nil, err
	}
	_, err = c.Create(ledgerNode, []byte("0"), 0, zk.WorldACL(zk.PermAll))
	if err != nil && !errors.Is(err, zk.ErrNodeExists) {
		stop()
		return nil, fmt.Errorf("make the ledger: %w", err)
	}
	return &page{c, stop}, nil
}

func (p *page) Record(ctx context.Context, n int64) error {
	return wait(ctx, func() error {
		_, err := p.c.Set(ledgerNode, []byte(strconv.FormatInt(n, 10)), -1)
		return err
	})
}

func (p *page) Recorded(ctx context.Context) (int64, error) {
	got := make(chan []byte, 1)
	err := wait(ctx, func() error {
		b, _, err := p.c.Get(ledgerNode)
		if err == nil {
			got <- b
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(<-got), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the ledger's node holds no number: %w", err)
	}
	return n, nil
}

// wait gives up with ctx, which the client's own calls do not know.
func wait(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *page) Close() error { p.stop(); return nil }
