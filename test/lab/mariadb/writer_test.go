package mariadb

import (
	"context"
	"testing"
	"time"
)

func TestWriterKeepsTheSum(t *testing.T) {
	fill(t, 1)
	before := fingerprint(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	type result struct {
		n   Counts
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := Writer(ctx, lab)
		done <- result{n, err}
	}()
	for ctx.Err() == nil {
		sum, err := LedgerSum(t.Context(), lab)
		if err != nil {
			t.Fatal(err)
		}
		if sum != LedgerTotal {
			t.Fatalf("sum of both tables is %d while the writer runs, want %d", sum, LedgerTotal)
		}
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Logf("%+v", r.n)
	if r.n.Transfers == 0 || r.n.Failed > 0 {
		t.Errorf("writer made %d transfers and failed %d times, want some and none", r.n.Transfers, r.n.Failed)
	}
	after := fingerprint(t)
	if changed := kinds(before, after); len(changed) != 1 || changed["rows"] != 4 {
		t.Errorf("the writer changed lines %v, want only the rows of its two tables", changed)
	}
}
