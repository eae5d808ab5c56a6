package mariadb

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// privilegeTable is a table of schema mysql that holds accounts or grants.
type privilegeTable struct {
	name string
	key  []string
}

// privilegeTables in the order in which they are written. Writing them takes
// effect at FLUSH PRIVILEGES, in one step; statements could not bring back
// password dates, plugin data and grants on what does not exist exactly.
var privilegeTables = []privilegeTable{
	{"global_priv", []string{"Host", "User"}},
	{"db", []string{"Host", "User", "Db"}},
	{"tables_priv", []string{"Host", "User", "Db", "Table_name"}},
	{"columns_priv", []string{"Host", "User", "Db", "Table_name", "Column_name"}},
	{"procs_priv", []string{"Host", "User", "Db", "Routine_name", "Routine_type"}},
	{"proxies_priv", []string{"Host", "User", "Proxied_host", "Proxied_user"}},
	{"roles_mapping", []string{"Host", "User", "Role"}},
	{"servers", []string{"Server_name"}},
}

// readAccounts reads all rows of the privilege tables as records, ascending.
func readAccounts(ctx context.Context, db querier) ([]record, error) {
	var out []record
	for _, t := range privilegeTables {
		rows, err := rowsByName(ctx, db, "SELECT * FROM "+qq("mysql", t.name))
		if err != nil {
			return nil, fmt.Errorf("read mysql.%s: %w", t.name, err)
		}
		for _, r := range rows {
			key := t.name
			for _, k := range t.key {
				if r[k] == nil {
					return nil, fmt.Errorf("mysql.%s has no column %s: %w", t.name, k, plugins.ErrVersion)
				}
				key += "\x00" + *r[k]
			}
			v, err := json.Marshal(r)
			if err != nil {
				return nil, err
			}
			out = append(out, record{[]byte(key), v})
		}
	}
	slices.SortFunc(out, func(a, b record) int { return strings.Compare(string(a.key), string(b.key)) })
	return out, nil
}

func rowsByName(ctx context.Context, db querier, query string) ([]map[string]*string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	cells := make([]sql.NullString, len(cols))
	ptr := make([]any, len(cols))
	for i := range cells {
		ptr[i] = &cells[i]
	}
	var out []map[string]*string
	for rows.Next() {
		if err := rows.Scan(ptr...); err != nil {
			return nil, err
		}
		m := make(map[string]*string, len(cols))
		for i, c := range cols {
			if cells[i].Valid {
				s := cells[i].String
				m[c] = &s
			} else {
				m[c] = nil
			}
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// readRecords reads a small Ordered artifact whole.
func readRecords(ctx context.Context, r plugins.ArtifactReader, name string) ([]record, error) {
	rr, err := r.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer rr.Close()
	var out []record
	for {
		k, v, err := rr.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, record{slices.Clone(k), slices.Clone(v)})
	}
}

// accountChange is a row to write (value set) or to delete.
type accountChange struct {
	table privilegeTable
	key   []string
	value map[string]*string
}

// AccountArtifact is true for the one artifact of accounts.
func (s *session) AccountArtifact(name string) bool { return name == accountsArtifact }

// RestoreAccounts makes the privilege tables equal to the artifact and lets
// the server read them again: all accounts switch at once. The row of the
// session's own account is written last.
func (s *session) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.version, Consistency: "all accounts switched at one FLUSH PRIVILEGES"}
	want, err := readRecords(ctx, r, accountsArtifact)
	if err != nil {
		return rep, fmt.Errorf("read the accounts of the backup: %w", err)
	}
	live, err := readAccounts(ctx, s.db)
	if err != nil {
		return rep, classify(err)
	}
	changes, err := s.accountChanges(ctx, want, live)
	if err != nil {
		return rep, classify(err)
	}
	if s.wsrep && len(changes) > 0 {
		rep.Warnings = append(rep.Warnings, "accounts were written on this Galera node only: run the restore of accounts on each node")
	}
	if len(changes) > 0 {
		if err := s.keepConnections(ctx, parallel(run)+4); err != nil {
			return rep, classify(err)
		}
		if err := s.applyAccounts(ctx, run, changes); err != nil {
			return rep, fmt.Errorf("restore accounts: %w", classify(err))
		}
	}
	for _, c := range changes {
		if c.value == nil {
			rep.Removed++
		}
	}
	rep.Records = int64(len(changes) - rep.Removed)
	if rep.Unchanged = 1; len(changes) > 0 {
		rep.Artifacts, rep.Unchanged = 1, 0
	}
	s.accounts = true
	return rep, nil
}

// keepConnections opens the connections a later Compare needs while the
// session's own account still logs in.
func (s *session) keepConnections(ctx context.Context, n int) error {
	if s.kept != nil {
		return nil
	}
	db, err := newPool(s.cfg, readerSetup, nil)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(n)
	s.kept = db
	for range n {
		c, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
	}
	return nil
}

func (s *session) accountChanges(ctx context.Context, want, live []record) ([]accountChange, error) {
	me, err := value(ctx, s.db, "SELECT CONCAT(SUBSTRING_INDEX(CURRENT_USER(),'@',-1),CHAR(0),SUBSTRING(CURRENT_USER(),1,CHAR_LENGTH(CURRENT_USER())-1-CHAR_LENGTH(SUBSTRING_INDEX(CURRENT_USER(),'@',-1))))")
	if err != nil {
		return nil, err
	}
	have := make(map[string]string, len(live))
	for _, r := range live {
		have[string(r.key)] = string(r.value)
	}
	var out, last []accountChange
	add := func(key string, v map[string]*string) error {
		p := strings.Split(key, "\x00")
		i := slices.IndexFunc(privilegeTables, func(t privilegeTable) bool { return t.name == p[0] })
		if i < 0 || len(p)-1 != len(privilegeTables[i].key) {
			return fmt.Errorf("account record %q: %w", p[0], plugins.ErrCorrupt)
		}
		c := accountChange{privilegeTables[i], p[1:], v}
		if p[0] == "global_priv" && strings.Join(p[1:], "\x00") == me {
			last = append(last, c)
		} else {
			out = append(out, c)
		}
		return nil
	}
	for _, r := range want {
		old, ok := have[string(r.key)]
		delete(have, string(r.key))
		if ok && old == string(r.value) {
			continue
		}
		var v map[string]*string
		if err := json.Unmarshal(r.value, &v); err != nil {
			return nil, fmt.Errorf("account record: %w: %w", plugins.ErrCorrupt, err)
		}
		if err := add(string(r.key), v); err != nil {
			return nil, err
		}
	}
	for key := range have {
		if err := add(key, nil); err != nil {
			return nil, err
		}
	}
	return append(out, last...), nil
}

func (s *session) applyAccounts(ctx context.Context, run plugins.Run, changes []accountChange) error {
	w, err := s.claim(ctx, run)
	if err != nil {
		return err
	}
	defer w.close()
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET NAMES utf8mb4"); err != nil {
		return err
	}
	for _, c := range changes {
		if _, err := conn.ExecContext(ctx, c.statement()); err != nil {
			return fmt.Errorf("write a row of mysql.%s: %w", c.table.name, err)
		}
	}
	_, err = conn.ExecContext(ctx, "FLUSH PRIVILEGES")
	return err
}

func (c accountChange) statement() string {
	name := qq("mysql", c.table.name)
	if c.value == nil {
		var cond []string
		for i, k := range c.table.key {
			cond = append(cond, "BINARY "+q(k)+"="+lit(c.key[i]))
		}
		return "DELETE FROM " + name + " WHERE " + strings.Join(cond, " AND ")
	}
	var cols, vals []string
	for col, v := range c.value {
		cols = append(cols, q(col))
		if v == nil {
			vals = append(vals, "NULL")
		} else {
			vals = append(vals, lit(*v))
		}
	}
	return "REPLACE INTO " + name + " (" + strings.Join(cols, ",") + ") VALUES (" + strings.Join(vals, ",") + ")"
}
