package mariadb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// FuzzDefinition: the record of a definition, which a backup may hold damaged.
func FuzzDefinition(f *testing.F) {
	o := &object{Kind: "table", Schema: "s", Name: "t", DDL: text("CREATE TABLE `t` (\n  `a` int(11)\n) ENGINE=InnoDB")}
	k, v, err := o.record()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k, v)
	f.Add([]byte("a\x00b\x00c\x00d"), []byte("{}"))
	f.Add([]byte("\x00\x00\x00"), []byte(`{"DDL":"`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		o, err := parseObject(key, value)
		if err != nil {
			if !errors.Is(err, plugins.ErrCorrupt) {
				t.Errorf("%v: want ErrCorrupt", err)
			}
			return
		}
		references(string(o.DDL), o)
		_ = rename(string(o.DDL), o.Schema, o.Name)
		_ = withAuto(string(o.DDL), "7")
		_ = qualifyReference(string(o.DDL), o.Schema)
	})
}

// FuzzNames: what is quoted cannot break out, and artifact names lead back to their table.
func FuzzNames(f *testing.F) {
	f.Add("s", "t")
	f.Add("a/b%2F", "`; DROP TABLE x; --")
	f.Add("'", "\\'")
	f.Fuzz(func(t *testing.T, schema, table string) {
		for _, s := range []string{schema, table} {
			if in := q(s); strings.ReplaceAll(in[1:len(in)-1], "``", "") != strings.ReplaceAll(in[1:len(in)-1], "`", "") || strings.ReplaceAll(in[1:len(in)-1], "``", "`") != s {
				t.Errorf("%q is quoted as %s", s, in)
			}
		}
		if schema == "" || table == "" {
			return
		}
		if a, b, ok := splitArtifact(tableArtifact(schema, table)); !ok || a != schema || b != table {
			t.Errorf("%q.%q: %q names %q.%q, %v", schema, table, tableArtifact(schema, table), a, b, ok)
		}
	})
}

// FuzzDefaults: MariaDB's own option files, as discovery reads them.
func FuzzDefaults(f *testing.F) {
	f.Add("[client]\nuser = root\npassword=\"a#b\" # c\n!include /etc/passwd\n")
	f.Add("!includedir .\n[mysqld]\nsocket")
	f.Add("[[[]\n=\n\\")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		p := filepath.Join(dir, "my.cnf")
		if strings.Contains(content, "!include") && strings.Contains(content, "/dev") {
			return // a device may not end
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = readDefaults(p, "client", "mysqld")
	})
}
