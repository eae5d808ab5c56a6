package etcd

import (
	"context"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

const ledgerKey = "/" + engine.LedgerName + "/txn"

// ledgerPage is the linked ledger's key, and the maintenance switch beside it.
type ledgerPage struct{ c *clientv3.Client }

// OpenLedger connects to all members of the instance.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	c, err := dial(members...)
	if err != nil {
		return nil, err
	}
	p := &ledgerPage{c}
	if n, err := p.Recorded(ctx); err == nil && n == 0 {
		err = p.Record(ctx, 0)
		return p, err
	} else if err != nil {
		_ = c.Close()
		return nil, err
	}
	return p, nil
}

func (p *ledgerPage) Record(ctx context.Context, n int64) error {
	_, err := p.c.Put(ctx, ledgerKey, strconv.FormatInt(n, 10))
	return err
}

func (p *ledgerPage) Recorded(ctx context.Context) (int64, error) {
	r, err := p.c.Get(ctx, ledgerKey)
	if err != nil || len(r.Kvs) == 0 {
		return 0, err
	}
	n, err := strconv.ParseInt(string(r.Kvs[0].Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the ledger's key holds no number: %w", err)
	}
	return n, nil
}

// Closed says whether CSO's maintenance switch is on.
func (p *ledgerPage) Closed(ctx context.Context) (bool, error) {
	r, err := p.c.Get(ctx, maintenanceKey)
	if err != nil || len(r.Kvs) == 0 {
		return false, err
	}
	return string(r.Kvs[0].Value) == "true", nil
}

func (p *ledgerPage) Close() error { return p.c.Close() }
