package cassandra

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// accountsArtifact holds roles, memberships and permissions; the keys say which.
const accountsArtifact = "accounts"

// accounts maps "kind NUL name …" to a value.
type accounts map[string]string

const (
	accRole       = "role"       // name → roleRow
	accMember     = "member"     // role, member
	accPermission = "permission" // role, resource as LIST shows it, permission
	accDatacenter = "datacenter" // role → sorted names: logs in there only
	accIdentity   = "identity"   // identity of a certificate → role (5.0)
)

type roleRow struct {
	Login bool   `json:"login"`
	Super bool   `json:"super"`
	Hash  string `json:"hash,omitempty"`
}

func accKey(parts ...string) string { return strings.Join(parts, "\x00") }

func (a accounts) records() []record {
	out := make([]record, 0, len(a))
	for _, k := range slices.Sorted(maps.Keys(a)) {
		out = append(out, record{[]byte(k), []byte(a[k])})
	}
	return out
}

func (a accounts) role(name string) (r roleRow, ok bool) {
	v, ok := a[accKey(accRole, name)]
	if ok {
		ok = json.Unmarshal([]byte(v), &r) == nil
	}
	return r, ok
}

// readAccounts reads who may log in and do what. Rights on the product's own keyspace are not part of it.
func (s *session) readAccounts(ctx context.Context) (accounts, error) {
	out := accounts{}
	fail := func(err error) (accounts, error) { return nil, s.cfg.wrap(ctx, "read accounts", err) }
	query := func(q string) *gocql.Iter {
		return s.c.Query(q).Consistency(gocql.Quorum).WithContext(ctx).Iter()
	}
	it := query("SELECT role, can_login, is_superuser, salted_hash, member_of FROM system_auth.roles")
	var role string
	var r roleRow
	var memberOf []string
	for it.Scan(&role, &r.Login, &r.Super, &r.Hash, &memberOf) {
		b, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		out[accKey(accRole, role)] = string(b)
		for _, m := range memberOf {
			out[accKey(accMember, m, role)] = ""
		}
		r, memberOf = roleRow{}, nil
	}
	if err := it.Close(); err != nil {
		return fail(err)
	}
	it = query("LIST ALL PERMISSIONS")
	row := map[string]any{}
	for it.MapScan(row) {
		res, _ := row["resource"].(string)
		role, _ := row["role"].(string)
		perm, _ := row["permission"].(string)
		if !ownResource(res) {
			out[accKey(accPermission, role, res, perm)] = ""
		}
		row = map[string]any{}
	}
	if err := it.Close(); err != nil {
		return fail(err)
	}
	it = query("SELECT role, dcs FROM system_auth.network_permissions")
	var list []string
	for it.Scan(&role, &list) {
		if slices.Sort(list); len(list) > 0 {
			out[accKey(accDatacenter, role)] = strings.Join(list, "\x00")
		}
		list = nil
	}
	if err := it.Close(); err != nil {
		return fail(err)
	}
	if s.v5 {
		it = query("SELECT identity, role FROM system_auth.identity_to_role")
		var id string
		for it.Scan(&id, &role) {
			out[accKey(accIdentity, id)] = role
		}
		if err := it.Close(); err != nil {
			return fail(err)
		}
	}
	return out, nil
}

// ownResource says whether rights are on the product's own keyspace: its maker got them by making it.
func ownResource(shown string) bool {
	for _, p := range []string{"keyspace ", "all tables in ", "all functions in "} {
		if shown == "<"+p+ownKeyspace+">" {
			return true
		}
	}
	return strings.HasPrefix(shown, "<table "+ownKeyspace+".") || strings.HasPrefix(shown, "<function "+ownKeyspace+".")
}

func loadAccounts(ctx context.Context, r plugins.ArtifactReader) (accounts, error) {
	rows, err := readRecords(ctx, r, accountsArtifact)
	if err != nil {
		return nil, err
	}
	out := accounts{}
	for _, row := range rows {
		out[string(row.key)] = string(row.value)
	}
	return out, nil
}

// AccountArtifact is true for the one artifact of accounts.
func (s *session) AccountArtifact(name string) bool { return name == accountsArtifact }

// step is one statement on accounts; what it holds is not shown.
type step struct {
	what, text string
	super      bool // only a superuser may
}

// accountSteps lead from live to want: made and changed first, then what is too much, and the
// session's own role last, so that nobody is locked out on the way.
func (s *session) accountSteps(want, live accounts) ([]step, error) {
	var steps, removals, own []step
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have, ok := live[k]; ok && have == want[k] {
			continue
		}
		p := strings.Split(k, "\x00")
		if p[0] == accRole {
			st, err := s.roleStep(p[1], want, live)
			if err != nil {
				return nil, err
			}
			if p[1] == s.cfg.user {
				own = append(own, st...)
			} else {
				steps = append(steps, st...)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have, ok := live[k]; ok && have == want[k] {
			continue
		}
		p := strings.Split(k, "\x00")
		switch p[0] {
		case accMember:
			steps = append(steps, step{what: "grant " + p[1] + " to " + p[2], text: "GRANT " + quote(p[1]) + " TO " + quote(p[2])})
		case accPermission:
			on, err := resource(p[2])
			if err != nil {
				return nil, err
			}
			steps = append(steps, step{what: "grant " + p[3] + " on " + on + " to " + p[1], text: "GRANT " + p[3] + " ON " + on + " TO " + quote(p[1])})
		case accDatacenter:
			var dcs []string
			for dc := range strings.SplitSeq(want[k], "\x00") {
				dcs = append(dcs, literal(dc))
			}
			steps = append(steps, step{what: "datacenters of " + p[1], text: "ALTER ROLE " + quote(p[1]) + " WITH ACCESS TO DATACENTERS {" + strings.Join(dcs, ", ") + "}"})
		case accIdentity:
			if _, ok := live[k]; ok {
				steps = append(steps, dropIdentity(p[1]))
			}
			steps = append(steps, step{what: "add an identity to " + want[k], text: "ADD IDENTITY " + literal(p[1]) + " TO ROLE " + literal(want[k]), super: true})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(live)) {
		if _, ok := want[k]; ok {
			continue
		}
		p := strings.Split(k, "\x00")
		gone := func(role string) bool { _, kept := want.role(role); return !kept }
		switch p[0] {
		case accRole:
			r, _ := live.role(p[1])
			if p[1] == s.cfg.user {
				return nil, fmt.Errorf("%s: role %s, which this product logs in with, is not in the backup: %w: log in with one that is", s.cfg.target, p[1], plugins.ErrConfig)
			}
			removals = append(removals, step{what: "drop role " + p[1], text: "DROP ROLE IF EXISTS " + quote(p[1]), super: r.Super})
		case accMember:
			// Also of a role that will be dropped: DROP ROLE leaves the rows of its memberships behind.
			if !gone(p[1]) {
				removals = append(removals, step{what: "revoke " + p[1] + " from " + p[2], text: "REVOKE " + quote(p[1]) + " FROM " + quote(p[2])})
			}
		case accPermission:
			if gone(p[1]) {
				continue
			}
			on, err := resource(p[2])
			if err != nil {
				return nil, err
			}
			st := step{what: "revoke " + p[3] + " on " + on + " from " + p[1], text: "REVOKE " + p[3] + " ON " + on + " FROM " + quote(p[1])}
			if p[1] == s.cfg.user {
				own = append(own, st)
			} else {
				removals = append(removals, st)
			}
		case accDatacenter:
			if !gone(p[1]) {
				removals = append(removals, step{what: "datacenters of " + p[1], text: "ALTER ROLE " + quote(p[1]) + " WITH ACCESS TO ALL DATACENTERS"})
			}
		case accIdentity:
			removals = append(removals, dropIdentity(p[1]))
		}
	}
	return slices.Concat(steps, removals, own), nil
}

// roleStep makes a role, or changes what differs.
func (s *session) roleStep(name string, want, live accounts) ([]step, error) {
	w, ok := want.role(name)
	if !ok {
		return nil, fmt.Errorf("artifact %q: role %s: %w: this backup was made by another version", accountsArtifact, name, plugins.ErrData)
	}
	is, exists := live.role(name)
	verb := "ALTER"
	var with []string
	if !exists {
		verb = "CREATE"
	}
	if !exists || is.Login != w.Login { // a role may change its own password, and nothing else
		with = append(with, fmt.Sprintf("LOGIN = %t", w.Login))
	}
	super := is.Super || w.Super || name == s.cfg.user && is.Login != w.Login
	if is.Super != w.Super {
		with = append(with, fmt.Sprintf("SUPERUSER = %t", w.Super))
	}
	var after []step
	if w.Hash != is.Hash && w.Hash != "" {
		if slices.Compare(versionNumbers(s.version), []int{4, 1}) >= 0 {
			with = append(with, "HASHED PASSWORD = "+literal(w.Hash))
		} else { // 4.0 has no statement for a hash
			text := "INSERT INTO system_auth.roles (role, salted_hash) VALUES (" + literal(name) + ", " + literal(w.Hash) + ")"
			after = append(after, step{what: "password of " + name, super: true, text: text})
		}
	}
	if len(with) == 0 {
		return after, nil
	}
	out := []step{{what: strings.ToLower(verb) + " role " + name, text: verb + " ROLE " + quote(name) + " WITH " + strings.Join(with, " AND "), super: super}}
	return append(out, after...), nil
}

func dropIdentity(id string) step {
	return step{what: "drop an identity", text: "DROP IDENTITY " + literal(id), super: true}
}

// resource turns a resource as LIST PERMISSIONS shows it into one as GRANT takes it.
func resource(shown string) (string, error) {
	in, ok := strings.CutPrefix(shown, "<")
	in, ok2 := strings.CutSuffix(in, ">")
	if !ok || !ok2 {
		return "", fmt.Errorf("permission on %q: %w: this backup was made by another version", shown, plugins.ErrData)
	}
	dotted := func(s string) string {
		ks, rest, _ := strings.Cut(s, ".")
		name, args, call := strings.Cut(rest, "(")
		out := quote(ks) + "." + quote(name)
		if call {
			out += "(" + signature(args)
		}
		return out
	}
	for prefix, to := range map[string]func(string) string{
		"all tables in ":    func(n string) string { return "ALL TABLES IN KEYSPACE " + quote(n) },
		"all functions in ": func(n string) string { return "ALL FUNCTIONS IN KEYSPACE " + quote(n) },
		"keyspace ":         func(n string) string { return "KEYSPACE " + quote(n) },
		"table ":            func(n string) string { return "TABLE " + dotted(n) },
		"function ":         func(n string) string { return "FUNCTION " + dotted(n) },
		"role ":             func(n string) string { return "ROLE " + quote(n) },
		"mbean ":            func(n string) string { return "MBEAN " + literal(n) },
	} {
		if n, ok := strings.CutPrefix(in, prefix); ok {
			return to(n), nil
		}
	}
	switch in {
	case "all keyspaces", "all functions", "all roles", "all mbeans":
		return strings.ToUpper(in), nil
	}
	return "", fmt.Errorf("permission on %q is of no known kind: %w", shown, plugins.ErrData)
}

// accountDifference reads both sides.
func (s *session) accountDifference(ctx context.Context, r plugins.ArtifactReader) (want, live accounts, err error) {
	if want, err = loadAccounts(ctx, r); err != nil {
		return nil, nil, err
	}
	live, err = s.readAccounts(ctx)
	return want, live, err
}

func (s *session) compareAccounts(ctx context.Context, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	want, live, err := s.accountDifference(ctx, r)
	if err != nil || maps.Equal(want, live) {
		return nil, err
	}
	var names []string
	for k, v := range want {
		if have, ok := live[k]; !ok || have != v {
			names = append(names, strings.ReplaceAll(k, "\x00", " "))
		}
	}
	for k := range live {
		if _, ok := want[k]; !ok {
			names = append(names, strings.ReplaceAll(k, "\x00", " ")+" is extra")
		}
	}
	slices.Sort(names)
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("and %d more", len(names)-5))
	}
	return []plugins.Difference{{Artifact: accountsArtifact, Kind: "changed", Detail: strings.Join(names, "; ")}}, nil
}

// planAccounts says whether accounts differ, and why they could not be restored with the session's rights.
func (s *session) planAccounts(ctx context.Context, r plugins.ArtifactReader) (differ bool, refusal string, err error) {
	want, live, err := s.accountDifference(ctx, r)
	if err != nil || maps.Equal(want, live) {
		return false, "", err
	}
	steps, err := s.accountSteps(want, live)
	if err != nil {
		return true, err.Error(), nil
	}
	if err := s.allowed(live, steps); err != nil {
		return true, err.Error(), nil
	}
	return true, "", nil
}

// allowed says whether the session may take all steps: some only a superuser may, the session's own role or the
// one of option superuser.
func (s *session) allowed(live accounts, steps []step) error {
	if me, _ := live.role(s.cfg.user); me.Super || s.cfg.user == "" || s.cfg.super != "" {
		return nil
	}
	for _, st := range steps {
		if st.super {
			return fmt.Errorf("%s: %s: %w: only a superuser may; name one in option superuser of the estate file", s.cfg.target, st.what, plugins.ErrAuth)
		}
	}
	return nil
}

// RestoreAccounts makes roles, passwords, memberships and permissions equal to the backup. The
// first member does it for the cluster.
func (s *session) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	var rep plugins.Report
	if s.cfg.self.Name != s.cfg.target.Members[0].Name {
		return rep, nil
	}
	c, err := s.claim(ctx, run)
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	src, err := s.sources(ctx, r)
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	want, live, err := s.accountDifference(ctx, src.accounts())
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	if maps.Equal(want, live) {
		rep.Unchanged = 1
		return rep, nil
	}
	steps, err := s.accountSteps(want, live)
	if err == nil {
		err = s.allowed(live, steps)
	}
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	by, err := s.accountant(ctx, steps)
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	defer by.close()
	for _, st := range steps {
		if err := c.check(ctx); err != nil {
			return rep, fmt.Errorf("restore accounts: %w", err)
		}
		run.Report(plugins.Status{Phase: "accounts", Item: st.what})
		if err := by.do(ctx, st); err != nil {
			return rep, err
		}
		rep.Records++
	}
	rep.Artifacts = 1
	// Making a role gives its maker rights on it: look again, once.
	if live, err = s.readAccounts(ctx); err != nil {
		return rep, err
	}
	again, err := s.accountSteps(want, live)
	if err != nil {
		return rep, fmt.Errorf("restore accounts: %w", err)
	}
	for _, st := range again {
		if err := by.do(ctx, st); err != nil {
			return rep, err
		}
	}
	return rep, s.forgetAccounts(ctx, run)
}

// accountant takes the steps: as the session's own role, and as a superuser those that only one may.
type accountant struct {
	s     *session
	super *gocql.Session
	close func()
}

func (s *session) accountant(ctx context.Context, steps []step) (*accountant, error) {
	a := &accountant{s: s, super: s.c, close: func() {}}
	if s.cfg.super == "" || !slices.ContainsFunc(steps, func(st step) bool { return st.super }) {
		return a, nil
	}
	as := *s.cfg
	var err error
	if as.password, err = s.cfg.self.Secret("superuser_password"); err != nil {
		return nil, err
	}
	as.user = s.cfg.super
	if a.super, err = as.connect(ctx, s.cfg.self); err != nil {
		return nil, fmt.Errorf("option superuser: %w", err)
	}
	a.close = a.super.Close
	return a, nil
}

// do makes one step. A password that was changed a moment ago may not be changed again for five seconds (5.0).
func (a *accountant) do(ctx context.Context, st step) error {
	c := a.s.c
	if st.super {
		c = a.super
	}
	for try := 0; ; try++ {
		err := c.Query(st.text).Consistency(ownWrite).WithContext(ctx).Exec()
		if err == nil {
			return nil
		}
		if try == 12 || !strings.Contains(err.Error(), "can only be changed every") {
			return fmt.Errorf("restore accounts: %w", a.s.cfg.wrap(ctx, st.what, err)) // the statement may hold a hash
		}
		if err := plugins.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}
