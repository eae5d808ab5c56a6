package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

var _ engine.Ledger = (*Engine)(nil)

// page is the linked ledger's file: one number of fixed width, written with a
// single call, so that no reader sees half of it.
type page struct{ path string }

// OpenLedger makes the file below the protected directory.
func (e *Engine) OpenLedger(ctx context.Context, members []engine.Member) (engine.Page, error) {
	p := &page{filepath.Join(roots(members[0])[0], engine.LedgerName)}
	if _, err := os.Lstat(p.path); errors.Is(err, fs.ErrNotExist) {
		return p, p.Record(ctx, 0)
	}
	return p, nil
}

func (p *page) Record(_ context.Context, n int64) error {
	f, err := os.OpenFile(p.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", n), 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (p *page) Recorded(context.Context) (int64, error) {
	b, err := os.ReadFile(p.path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

func (p *page) Close() error { return nil }
