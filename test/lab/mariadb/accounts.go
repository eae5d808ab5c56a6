package mariadb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// account is a user, or a role when its host is empty and its JSON says so.
type account struct {
	user, host string
	priv       []byte
	role       bool
}

func (a account) String() string {
	if a.role {
		return ident(a.user)
	}
	return ident(a.user) + "@" + ident(a.host)
}

// accounts covers users and roles three times over: the record the server
// reads, the statement that makes it, and the grants.
func accounts(ctx context.Context, c *sql.Conn, out *lines) error {
	var all []account
	err := records(ctx, c, "SELECT User, Host, Priv FROM mysql.global_priv", func(v []sql.RawBytes) error {
		all = append(all, account{user: string(v[0]), host: string(v[1]), priv: bytes.Clone(v[2])})
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range all {
		priv, err := decodePriv(a.priv)
		if err != nil {
			return fmt.Errorf("mysql.global_priv of %s: %w", a, err)
		}
		a.role = priv["is_role"] == true
		if role, ok := priv["default_role"]; ok {
			out.add("default_role", a.String(), fmt.Sprint(role))
		}
		canonical, err := json.Marshal(priv)
		if err != nil {
			return fmt.Errorf("mysql.global_priv of %s: %w", a, err)
		}
		sum := sha256.Sum256(canonical)
		out.add("account", a.String(), hex.EncodeToString(sum[:]))
		if !a.role {
			if err := show(ctx, c, out, "create_user", a.String(), "SHOW CREATE USER "+a.String(), 0); err != nil {
				return err
			}
		}
		if err := grants(ctx, c, out, a); err != nil {
			return err
		}
	}
	return nil
}

// decodePriv normalises the JSON of an account: the order of members does not
// count, nor the version of the server that wrote it, nor a member that holds
// the value it would have when absent (an account unlocked again).
func decodePriv(text []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // access is a 64 bit mask
	priv := map[string]any{}
	if err := d.Decode(&priv); err != nil {
		return nil, err
	}
	delete(priv, "version_id")
	absent := map[string]any{
		"access": json.Number("0"), "account_locked": false, "ssl_type": json.Number("0"), "ssl_cipher": "", "x509_issuer": "", "x509_subject": "",
		"max_questions": json.Number("0"), "max_updates": json.Number("0"), "max_connections": json.Number("0"), "max_user_connections": json.Number("0"),
		"max_statement_time": json.Number("0.000000"), "password_lifetime": json.Number("-1"), "default_role": "",
	}
	for k, v := range absent {
		if priv[k] == v {
			delete(priv, k)
		}
	}
	return priv, nil
}

// grants adds a line per grant, numbered in sorted order: the server lists
// them in the order of its hash tables, which a restart changes.
func grants(ctx context.Context, c *sql.Conn, out *lines, a account) error {
	list, err := column(ctx, c, "SHOW GRANTS FOR "+a.String())
	if err != nil {
		return unreadable(out, "grant", a.String(), err)
	}
	for i := range list {
		list[i] = sortColumns(list[i])
	}
	slices.Sort(list)
	for i, g := range list {
		sum := sha256.Sum256([]byte(g))
		// The statement up to its password is no secret and tells a reader what differs.
		head, _, _ := strings.Cut(g, " IDENTIFIED ")
		out.add("grant", fmt.Sprintf("%s %d", a, i), head+" "+hex.EncodeToString(sum[:6]))
	}
	return nil
}

// sortColumns sorts each list of columns in a grant. The server lists them in
// the order of a hash table, which the next reading of the tables changes.
func sortColumns(grant string) string {
	var (
		out    strings.Builder
		list   []string
		item   strings.Builder
		inside bool
		quoted bool
	)
	for _, r := range grant {
		if r == '`' {
			quoted = !quoted // a doubled backtick toggles twice
		}
		switch {
		case !inside:
			out.WriteRune(r)
			inside = r == '(' && !quoted
		case !quoted && (r == ',' || r == ')'):
			list = append(list, strings.TrimSpace(item.String()))
			item.Reset()
			if r == ')' {
				slices.Sort(list)
				out.WriteString(strings.Join(list, ", ") + ")")
				list, inside = nil, false
			}
		default:
			item.WriteRune(r)
		}
	}
	return out.String() + item.String()
}

// keyed are tables of the mysql schema whose records are content, with the
// number of leading columns that name a record and the columns that no
// statement can set.
var keyed = []struct {
	table string
	key   []string
	skip  []string
}{
	{"roles_mapping", []string{"Host", "User", "Role"}, nil},
	{"db", []string{"Host", "Db", "User"}, nil},
	{"tables_priv", []string{"Host", "Db", "User", "Table_name"}, []string{"Grantor", "Timestamp"}},
	{"columns_priv", []string{"Host", "Db", "User", "Table_name", "Column_name"}, []string{"Timestamp"}},
	{"procs_priv", []string{"Host", "Db", "User", "Routine_name", "Routine_type"}, []string{"Grantor", "Timestamp"}},
	{"proxies_priv", []string{"Host", "User", "Proxied_host", "Proxied_user"}, []string{"Grantor", "Timestamp"}},
	{"servers", []string{"Server_name"}, nil},
	{"plugin", []string{"name"}, nil},
	{"func", []string{"name"}, nil},
}

// handledTables of the mysql schema are fingerprinted by their meaning or are
// not content; all others (time zones, tables somebody made) count row by row.
var handledTables = []string{
	"roles_mapping", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "servers", "plugin", "func",
	"global_priv", "proc", "event",
	"column_stats", "index_stats", "table_stats", "innodb_index_stats", "innodb_table_stats",
	"general_log", "slow_log", "gtid_slave_pos", "transaction_registry",
	"help_category", "help_keyword", "help_relation", "help_topic",
}

func systemTables(ctx context.Context, c *sql.Conn, out *lines) error {
	for _, t := range keyed {
		cols, err := column(ctx, c, "SELECT column_name FROM information_schema.columns WHERE table_schema='mysql' AND table_name='"+t.table+"' ORDER BY ordinal_position")
		if err != nil {
			return err
		}
		list := make([]string, 0, len(t.key)+len(cols))
		for _, k := range t.key {
			list = append(list, ident(k))
		}
		for _, col := range cols {
			if !slices.Contains(t.skip, col) {
				list = append(list, ident(col))
			}
		}
		err = records(ctx, c, "SELECT "+strings.Join(list, ",")+" FROM mysql."+ident(t.table), func(v []sql.RawBytes) error {
			names := make([]string, len(t.key))
			for i := range names {
				names[i] = ident(string(v[i]))
			}
			out.add(t.table, strings.Join(names, " "), hash(v))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
