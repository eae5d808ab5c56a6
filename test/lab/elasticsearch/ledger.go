package elasticsearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

const ledgerDocument = "/" + engine.LedgerName + "/_doc/txn"

// page is the linked ledger's document, in an index of its own. Any node answers for it.
type page struct{ nodes []*client }

// OpenLedger makes the index, with a second copy where there is a node for one, and its document.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (_ engine.Page, err error) {
	p := &page{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the ledger: %w", err), p.Close())
		}
	}()
	for _, m := range members {
		c, err := dial(m)
		if err != nil {
			return nil, err
		}
		p.nodes = append(p.nodes, c)
	}
	index := map[string]any{"settings": map[string]any{"index.number_of_shards": 1, "index.auto_expand_replicas": "0-1"}}
	var status *statusError
	_, err = p.ask(ctx, http.MethodPut, "/"+engine.LedgerName+"?wait_for_active_shards=1", index)
	if err != nil && !(errors.As(err, &status) && status.code == http.StatusBadRequest) { // there already
		return nil, err
	}
	_, err = p.ask(ctx, http.MethodPut, ledgerDocument+"?op_type=create", map[string]int64{"n": 0})
	if err != nil && !(errors.As(err, &status) && status.code == http.StatusConflict) {
		return nil, err
	}
	return p, nil
}

// ask sends a request to the first node that answers at all.
func (p *page) ask(ctx context.Context, method, path string, body any) ([]byte, error) {
	var errs []error
	for _, c := range p.nodes {
		answer, err := c.do(ctx, method, path, body)
		var status *statusError
		if err == nil || errors.As(err, &status) || ctx.Err() != nil {
			return answer, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// Record is acknowledged when the transaction log of every copy is on disk, which is the default.
func (p *page) Record(ctx context.Context, n int64) error {
	_, err := p.ask(ctx, http.MethodPut, ledgerDocument, map[string]int64{"n": n})
	return err
}

// Recorded asks by id, which sees the last write without a refresh.
func (p *page) Recorded(ctx context.Context) (int64, error) {
	answer, err := p.ask(ctx, http.MethodGet, ledgerDocument, nil)
	if err != nil {
		return 0, err
	}
	var d struct {
		Source struct {
			N json.Number `json:"n"`
		} `json:"_source"`
	}
	if err := json.Unmarshal(answer, &d); err != nil {
		return 0, fmt.Errorf("the ledger's document holds no number: %w", err)
	}
	return d.Source.N.Int64()
}

func (p *page) Close() error {
	for _, c := range p.nodes {
		c.close()
	}
	return nil
}
