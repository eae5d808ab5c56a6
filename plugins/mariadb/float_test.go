package mariadb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The text made here of a number is the server's own, bit for bit: backups
// hold what the server wrote before this program could. CSO_FLOATS gives the
// number of random values (default 20000).
func TestNumbersAsTheServerWritesThem(t *testing.T) {
	s := open(t)
	values := []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1e15, 1e14, 999999999999999, 1e16, 123456789012345678, 1e-14, 1e-15, 1.5e-15, 1.5e-14, 9.999e-15,
		math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 2.2250738585072014e-308, 2.225073858507201e-308, math.MaxFloat32, 1e22, 1e23, 5e-324,
		9007199254740991, 9007199254740992, 9007199254740993, 1e100, 1e-100, 1e99, 1e-99, 1e10, 1e9, 16777216, 16777217, 8388609, 1.0 / 3, 2.0 / 3, 100, 1000000}
	for e := -1074; e < 1024; e++ {
		x := math.Ldexp(1, e)
		values = append(values, x, math.Nextafter(x, 0), math.Nextafter(x, math.Inf(1)))
	}
	for e := -320; e < 309; e++ {
		x, err := strconv.ParseFloat(fmt.Sprintf("1e%d", e), 64)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, x, math.Nextafter(x, 0), math.Nextafter(x, math.Inf(1)), float64(float32(x)))
	}
	n := 20000
	if v := atoi(os.Getenv("CSO_FLOATS")); v > 0 {
		n = v
	}
	r := rand.New(rand.NewPCG(uint64(epoch), 3))
	for range n / 4 {
		values = append(values, math.Float64frombits(r.Uint64()), float64(math.Float32frombits(r.Uint32())), float64(r.Uint32())/4096, math.Round(r.NormFloat64()*1e6)/1000)
	}
	conn, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	execConn := func(stmt string) {
		if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%v in %.200s", err, stmt)
		}
	}
	execConn("CREATE TEMPORARY TABLE mysql.numbers (i INT PRIMARY KEY, x DOUBLE) ENGINE=InnoDB")
	wrong, seen := 0, map[bool]int{}
	for len(values) > 0 {
		part := values[:min(5000, len(values))]
		values = values[len(part):]
		var rows []string
		for i, x := range part {
			if !math.IsNaN(x) && !math.IsInf(x, 0) {
				rows = append(rows, fmt.Sprintf("(%d,%s)", i, strconv.FormatFloat(x, 'e', 17, 64)))
			}
		}
		execConn("DELETE FROM mysql.numbers")
		execConn("INSERT INTO mysql.numbers VALUES " + strings.Join(rows, ","))
		got, err := table(t.Context(), conn, "SELECT i, POINT(x,0e0), CAST(x*1e0 AS CHAR) FROM mysql.numbers")
		if err != nil || len(got) != len(rows) {
			t.Fatalf("%d of %d rows, %v", len(got), len(rows), err)
		}
		for _, r := range got {
			x, ok := pointed([]byte(r[1]))
			sent := part[atoi(r[0])]
			seen[x == sent]++
			if have := string(appendDouble(nil, x)); !ok || have != r[2] {
				if wrong++; wrong < 20 {
					t.Errorf("%x: %s here, %s from the server", math.Float64bits(x), have, r[2])
				}
			}
		}
	}
	// The server need not read every literal as Go does, but nearly all, else this test sees few numbers.
	if wrong > 0 || seen[false] > seen[true]/100 {
		t.Errorf("%d differ; %d of %d came back as sent", wrong, seen[true], seen[true]+seen[false])
	}
}
