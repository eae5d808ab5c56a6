package mariadb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"
)

// Ranges read by several connections are, one after the other, the table.
func TestTableReadInRanges(t *testing.T) {
	suiteClear(t, target())
	runSQL(t, target(), `CREATE DATABASE ranges; USE ranges;
CREATE TABLE ranges.low (id INT PRIMARY KEY, v VARCHAR(400)); INSERT INTO ranges.low SELECT CAST(seq AS SIGNED)*CAST(seq AS SIGNED)-4000000, REPEAT('x',seq%400) FROM seq_1_to_4000;
CREATE TABLE ranges.high (id BIGINT UNSIGNED, n TINYINT, v INT, PRIMARY KEY (id,n)); INSERT INTO ranges.high SELECT 18446744073709551615-seq, seq%5, seq FROM seq_0_to_3999;
CREATE TABLE ranges.whole (id BIGINT PRIMARY KEY); INSERT INTO ranges.whole SELECT (CAST(seq AS SIGNED)-2000)*4600000000000000 FROM seq_0_to_4000;
CREATE TABLE ranges.fill (id INT ZEROFILL PRIMARY KEY, v LONGBLOB); INSERT INTO ranges.fill SELECT seq, IF(seq%50,'',REPEAT('y',3000000)) FROM seq_1_to_200;
CREATE TABLE ranges.text (id VARCHAR(9) PRIMARY KEY); INSERT INTO ranges.text SELECT seq FROM seq_1_to_200;
CREATE TABLE ranges.none (id INT PRIMARY KEY); CREATE TABLE ranges.one (id INT PRIMARY KEY); INSERT INTO ranges.one VALUES (1);`)
	s := open(t)
	conns, release, err := s.readers(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := readCatalog(t.Context(), queriers(conns))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.details(t.Context(), conns[0], nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"low", "high", "whole", "fill", "text", "none", "one"} {
		ti := c.tables[tableArtifact("ranges", name)]
		var want [][]byte
		if err := readRows(t.Context(), conns[0], ti.plan(false), func(k, v []byte) error {
			want = append(want, slices.Concat(k, v))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		ti.bytes = 60 * splitRange
		sp, err := splitBy(t.Context(), conns[0], ti, 3)
		if err != nil {
			t.Fatal(err)
		}
		if cut := sp != nil; cut != (len(want) > 1 && name != "text") {
			t.Errorf("%s: read in ranges: %v", name, cut)
		}
		if sp == nil {
			continue
		}
		for _, stop := range []int{-1, len(want) / 2} {
			sp.next = 0
			sp.begin(t.Context(), 3)
			g, ctx := errgroup.WithContext(t.Context())
			helped := make([]int, 3)
			for i, conn := range conns[1:] {
				g.Go(func() error {
					for {
						more, err := sp.help(ctx, conn)
						if err != nil || !more {
							return err
						}
						helped[i]++
					}
				})
			}
			var got [][]byte
			g.Go(func() error {
				defer sp.end()
				err := sp.read(ctx, conns[0], func(k, v []byte) error {
					if len(got) == stop {
						return errStopped
					}
					got = append(got, slices.Concat(k, v))
					return nil
				})
				if errors.Is(err, errStopped) && stop >= 0 {
					return nil
				}
				return err
			})
			if err := g.Wait(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all := want
			if stop >= 0 {
				all = want[:stop]
			}
			if !slices.EqualFunc(got, all, bytes.Equal) {
				t.Errorf("%s: %d rows in ranges, want %d", name, len(got), len(all))
			}
			if stop < 0 && helped[0]+helped[1] == 0 {
				t.Errorf("%s: nobody helped", name)
			}
		}
		// The connections still answer.
		for i, conn := range conns {
			if v, err := value(t.Context(), conn, "SELECT "+fmt.Sprint(i)); err != nil || v != fmt.Sprint(i) {
				t.Errorf("connection %d: %q %v", i, v, err)
			}
		}
	}
}
