package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Ledger is the linked ledger: one transaction number that is stored in every
// instance of the lab, in the order of their start. Between two transactions
// all pages hold the same number, so a backup that mixes two moments shows.
type Ledger struct {
	lock  string
	names []string
	pages map[string]engine.Page
	gate  engine.Gate
}

// LedgerCounts is what the ledger's writer did.
type LedgerCounts struct {
	First, Last int64 // transaction numbers: before the start, and of the last one
	Repeated    int64 // writes that failed and were made again
	Paused      int64 // looks at the switch that found maintenance
}

const (
	ledgerPace   = 40 * time.Millisecond // between transactions: the writer is to be seen, not to fill the machine
	ledgerWait   = 20 * time.Millisecond // between looks at the switch, and between failed writes
	ledgerFinish = 3 * time.Minute       // for a transaction that was begun: a killed Cassandra is away for a minute
)

// LedgerLock is the file that the writer locks for each transaction. Whoever
// holds it knows that no transaction is half done: the estate's own
// enter_maintenance hook waits so for the writers.
func (l *Lab) LedgerLock() string { return l.path("ledger.lock") }

// OpenLedger opens the pages of all instances whose engines keep one.
func (l *Lab) OpenLedger(ctx context.Context) (_ *Ledger, err error) {
	st, err := l.read()
	if err != nil {
		return nil, err
	}
	table := engines(st.Versions)
	out := &Ledger{lock: l.LedgerLock(), pages: map[string]engine.Page{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close())
		}
	}()
	for _, in := range st.instances() {
		e, ok := table[in.component].engine.(engine.Ledger)
		if !ok {
			continue
		}
		p, err := e.OpenLedger(ctx, st.members(in.component, in.name))
		if err != nil {
			return nil, fmt.Errorf("ledger of %s: %w", in, err)
		}
		out.names = append(out.names, in.String())
		out.pages[in.String()] = p
		if g, ok := p.(engine.Gate); ok && in.name == central {
			out.gate = g
		}
	}
	if out.gate == nil {
		return nil, errors.New("no instance of this lab holds the maintenance switch: the ledger's writer could not obey it")
	}
	return out, nil
}

// Close lets go of all connections.
func (g *Ledger) Close() error {
	var errs []error
	for _, p := range g.pages {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Read gives the number that each instance knows.
func (g *Ledger) Read(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	for name, p := range g.pages {
		n, err := p.Recorded(ctx)
		if err != nil {
			return nil, fmt.Errorf("ledger of %s: %w", name, err)
		}
		out[name] = n
	}
	return out, nil
}

// Write stores one transaction after the other until ctx ends, and obeys the
// maintenance switch. A transaction that has begun is finished.
func (g *Ledger) Write(ctx context.Context) (LedgerCounts, error) {
	var c LedgerCounts
	before, err := g.Read(context.WithoutCancel(ctx))
	if err != nil {
		return c, err
	}
	c.First = slices.Max(slices.Collect(maps.Values(before)))
	c.Last = c.First
	for ctx.Err() == nil {
		if err := g.transaction(ctx, &c); err != nil {
			return c, err
		}
	}
	return c, nil
}

// transaction is one step of Write, under the lock.
func (g *Ledger) transaction(ctx context.Context, c *LedgerCounts) error {
	f, err := os.OpenFile(g.lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("ledger lock: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		time.Sleep(ledgerWait) // somebody waits for us to be idle
		return nil
	}
	look, done := context.WithTimeout(ctx, 2*time.Second)
	closed, err := g.gate.Closed(look)
	done()
	if err != nil || closed {
		c.Paused++
		_ = f.Close()
		time.Sleep(ledgerWait)
		return nil
	}
	n := c.Last + 1
	limit, done := context.WithTimeout(context.WithoutCancel(ctx), ledgerFinish)
	defer done()
	for _, name := range g.names {
		for {
			one, done := context.WithTimeout(limit, 5*time.Second)
			err := g.pages[name].Record(one, n)
			done()
			if err == nil {
				break
			}
			c.Repeated++
			if limit.Err() != nil {
				return fmt.Errorf("transaction %d: %s: %w", n, name, err)
			}
			time.Sleep(ledgerWait)
		}
	}
	c.Last = n
	_ = f.Close()
	time.Sleep(ledgerPace)
	return nil
}
