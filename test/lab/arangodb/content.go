package arangodb

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Databases that Fill makes beside _system.
const (
	mainDB = "cso"
	logsDB = "cso_logs"
)

// sites are how many documents the main collection has.
func sites(size string) int {
	if size == "large" {
		return 100_000
	}
	return 600
}

// randomText is printable, and does not compress well.
func randomText(r *rand.Rand, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

// site is a document as a CSO installation holds them: a device at a tenant's site.
func site(r *rand.Rand, i int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"_key":"site-%06d","tenant":"tenant-%02d","name":%q,"wan":["10.%d.%d.0/24","2001:db8:%x::/48"],"bandwidth":%d,"load":%.3f,"up":%t,"place":{"type":"Point","coordinates":[%.4f,%.4f]},"notes":%q}`,
		i, r.IntN(12), randomText(r, 8), r.IntN(256), r.IntN(256), r.IntN(65536), r.Int64(), r.Float64(), r.IntN(2) == 0,
		r.Float64()*360-180, r.Float64()*180-90, randomText(r, 20+r.IntN(300))))
}

// awkward are documents that careless tools change: numbers at the edge, key order, Unicode, depth, size.
func awkward(r *rand.Rand) []json.RawMessage {
	values := []string{
		`9223372036854775807`, `-9223372036854775808`, `18446744073709551615`, `0.1`, `1e+300`, `5e-324`, `1.7976931348623157e+308`, `-0.5`,
		`true`, `false`, `null`, `""`, `[]`, `{}`, `[[],{},[{}]]`,
		`"\u0000\u0001\u001f"`, `"quote \" backslash \\ slash / tab \t line \n"`, `"日本語 العربية 🚀 é é"`, `"<script>alert('&')</script>"`, `"\ufeff\u2028\u2029"`,
		`{"z":1,"a":2,"m":{"y":1,"b":2}}`, `{"":1," ":2,"ü":3,"a.b":4,"_x":5}`, `"2026-01-02T03:04:05.678Z"`,
		strings.Repeat(`[`, 60) + `1` + strings.Repeat(`]`, 60), strings.Repeat(`{"d":`, 60) + `"deep"` + strings.Repeat(`}`, 60),
		`"` + randomText(r, 1<<20) + `"`, `[` + strings.TrimSuffix(strings.Repeat("1234567890,", 50_000), ",") + `]`,
	}
	var out []json.RawMessage
	for i, v := range values {
		out = append(out, json.RawMessage(fmt.Sprintf(`{"_key":"value-%02d","v":%s,"after":%d}`, i, v, r.IntN(1000))))
	}
	for _, k := range []string{"_", "-", "0", "a:b@c.d-e_f", "(+,=;$!*'%)", strings.Repeat("k", 254), "A", "a"} {
		out = append(out, json.RawMessage(fmt.Sprintf(`{"_key":%q,"n":%d}`, k, r.IntN(1000))))
	}
	return append(out, json.RawMessage(`{"_key":"only-a-key"}`))
}

// passwords are how many a user may have been given by different seeds.
const passwords = 8

// Password is the one that Fill gives to a user.
func Password(user string, seed int64) string {
	return fmt.Sprintf("pw-%s-%d", user, uint64(seed)%passwords)
}

// account is a user that Fill makes: grants by "database" or "database/collection".
type account struct {
	name   string
	active bool
	extra  object
	grants [][2]string
}

func accounts() []account {
	return []account{
		{"cso-admin", true, object{"team": "operations"}, [][2]string{{"*", "rw"}, {"*/*", "rw"}}},
		{"cspadmin", true, object{}, [][2]string{{mainDB, "rw"}, {mainDB + "/audit", "ro"}, {mainDB + "/links", "none"}}},
		{"reader", true, object{"n": 1}, [][2]string{{mainDB, "ro"}, {logsDB, "ro"}}},
		{"idle", false, object{}, nil},
		{"two words", true, object{"nested": object{"a": []any{1, "x", nil}}}, [][2]string{{logsDB, "rw"}}},
		{"üser-数据", true, object{}, [][2]string{{logsDB + "/lines", "rw"}, {"*", "none"}}},
	}
}
