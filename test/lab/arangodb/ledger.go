package arangodb

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

const ledgerDocument = "txn"

// page is the linked ledger's document in _system.
type page struct{ c *client }

// OpenLedger connects and makes the collection and its document.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	c, err := dial(members[0])
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, "POST", in(systemDB, "/_api/collection"), object{"name": engine.LedgerName}, nil)
	if err == nil || refused(err, 409) {
		err = c.call(ctx, "POST", in(systemDB, "/_api/document/"+engine.LedgerName+"?overwriteMode=ignore"), object{"_key": ledgerDocument, "n": 0}, nil)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("make the ledger: %w", err)
	}
	return &page{c}, nil
}

func (p *page) Record(ctx context.Context, n int64) error {
	return p.c.call(ctx, "PUT", in(systemDB, "/_api/document/"+engine.LedgerName+"/"+ledgerDocument), object{"n": n}, nil)
}

func (p *page) Recorded(ctx context.Context) (int64, error) {
	var d struct{ N json.Number }
	if err := p.c.call(ctx, "GET", in(systemDB, "/_api/document/"+engine.LedgerName+"/"+ledgerDocument), nil, &d); err != nil {
		return 0, err
	}
	return d.N.Int64()
}

func (p *page) Close() error { p.c.close(); return nil }
