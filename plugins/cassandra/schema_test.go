package cassandra

import "testing"

// TestMilliseconds: a server of 5.0.9 described a column dropped USING TIMESTAMP 1600000000000001 with that number, and with
// 1600000000000000 after a restart.
func TestMilliseconds(t *testing.T) {
	const table = "CREATE TABLE a.b (\n    id int PRIMARY KEY,\n    y int\n) WITH ID = 5a3c0000-1f2e-11ee-8c99-0242ac120002\n    AND comment = 'DROP y USING TIMESTAMP 1600000000000001;';\n"
	for in, want := range map[string]string{
		table: table,
		table + "ALTER TABLE a.b DROP y USING TIMESTAMP 1600000000000001;\n":                             table + "ALTER TABLE a.b DROP y USING TIMESTAMP 1600000000000000;\n",
		table + "ALTER TABLE a.b DROP y USING TIMESTAMP 1600000000001999;\nALTER TABLE a.b ADD y int;\n": table + "ALTER TABLE a.b DROP y USING TIMESTAMP 1600000000001000;\nALTER TABLE a.b ADD y int;\n",
		"ALTER TABLE \"A\".b DROP \"Y z\" USING TIMESTAMP 1795349925438000;":                             "ALTER TABLE \"A\".b DROP \"Y z\" USING TIMESTAMP 1795349925438000;",
	} {
		if got := inMilliseconds(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}
