package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/test/lab/cassandra"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// serverOf starts one component for a test.
func serverOf(t *testing.T, component, version string, members int) *Lab {
	t.Helper()
	o := Options{Dir: shortDir(t), Components: []string{component}, Members: members, ServersOnly: true, Out: os.Stderr}
	if version != "" {
		o.Versions = map[string]string{component: version}
	}
	l, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// lines is a fingerprint.
func lines(t *testing.T, l *Lab) []string {
	t.Helper()
	var b bytes.Buffer
	if _, err := l.Fingerprint(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(b.String()), "\n")
}

// equal fails with the first lines that differ.
func equal(t *testing.T, what string, want, got []string) {
	t.Helper()
	lost, extra := without(want, got), without(got, want)
	if len(lost)+len(extra) > 0 {
		t.Fatalf("%s:\nmissing: %.2000q\nextra: %.2000q", what, lost[:min(5, len(lost))], extra[:min(5, len(extra))])
	}
}

// lasting leaves out Elasticsearch's transient settings, which masters keep in
// memory only, and the sum that counts them.
func lasting(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return strings.HasPrefix(l, "setting\t\"transient\"") || strings.HasPrefix(l, "fingerprint")
	})
}

// without are the lines of a that b does not have.
func without(a, b []string) []string {
	have := map[string]bool{}
	for _, l := range b {
		have[l] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(l string) bool { return have[l] })
}

// judged checks that fill is a function of its seed, whatever was there
// before, that wreck changes all that the kinds name, and that servers and
// judge survive a kill. The content of seed 1 is in the lab afterwards.
func judged(t *testing.T, l *Lab, member string, kinds ...string) []string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Fill(t.Context(), 2, "small"))
	other := lines(t, l)
	must(l.Fill(t.Context(), 1, "small"))
	first := lines(t, l)
	if len(without(first, other)) < 100 {
		t.Error("two seeds give the same content")
	}
	must(l.Wreck(t.Context(), 1))
	wrecked := lines(t, l)
	changed := append(without(first, wrecked), without(wrecked, first)...)
	for _, k := range kinds {
		if !slices.ContainsFunc(changed, func(l string) bool { return strings.HasPrefix(l, k+"\t") }) {
			t.Errorf("wreck changed no line of kind %q", k)
		}
	}
	must(l.Wreck(t.Context(), 1))
	must(l.Fill(t.Context(), 1, "small"))
	equal(t, "filled again", first, lines(t, l))
	must(l.Kill(t.Context(), member))
	must(l.StartMember(t.Context(), member))
	after := lines(t, l)
	equal(t, "after a kill", lasting(first), lasting(after))
	return after
}

var (
	cassandraKinds     = strings.Fields("keyspace table column dropped_column indexe view type function aggregate role role_member role_permission row found")
	elasticsearchKinds = strings.Fields("aliases mappings settings index document template component_template index_template pipeline setting found")
)

// seen makes one change after the other and demands that the fingerprint tells each by its kind.
func seen(t *testing.T, l *Lab, was []string, changes [][2]string, do func(change string) error) {
	t.Helper()
	for _, c := range changes {
		if err := do(c[1]); err != nil {
			t.Fatalf("%s: %v", c[1], err)
		}
		is := lines(t, l)
		changed := append(without(was, is), without(is, was)...)
		if !slices.ContainsFunc(changed, func(l string) bool { return strings.HasPrefix(l, c[0]+"\t") }) {
			t.Errorf("no line of kind %q tells of: %s\n%.1000q", c[0], c[1], changed)
		}
		was = is
	}
}

func TestCassandra(t *testing.T) {
	l := serverOf(t, "cassandra", "", 1)
	was := judged(t, l, "cassandra-1", append(cassandraKinds, "column_mask")...)
	members, err := l.Members("cassandra", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if err := cassandra.CheckLogins(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	c, err := cassandra.Client(t.Context(), members[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen(t, l, was, [][2]string{
		{"row", `UPDATE cso_inventory.options USING TIMESTAMP 1800000000000000 SET v = 'x' WHERE k = 1`},
		{"row", `UPDATE cso_inventory.options USING TIMESTAMP 1800000000000001 SET v = 'x' WHERE k = 1`}, // its write time alone
		{"row", `UPDATE cso_inventory.expiring USING TIMESTAMP 1800000000000000 AND TTL 1000000 SET a = 'never' WHERE k = -2`},
		{"row", `UPDATE cso_inventory.expiring USING TIMESTAMP 1800000000000000 AND TTL 1000100 SET a = 'never' WHERE k = -2`}, // its expiry alone
		{"row", `UPDATE cso_inventory.collections USING TIMESTAMP 1800000000000000 SET m['k'] = 1 WHERE id = 1`},               // an element's write time alone
		{"row", `UPDATE cso_inventory.collections USING TIMESTAMP 1800000000000000 SET u.street = 'other' WHERE id = 1`},
		{"row", `UPDATE cso_inventory.statics SET shared = null WHERE a = 'only static' AND b = 1`},
		{"row", `UPDATE cso_inventory.counters SET total = total + 1 WHERE k = 'c1'`},
		{"row", `INSERT INTO cso_inventory.devices (id, site) VALUES (9999, 'x')`}, // and its views' rows
		{"column_mask", `ALTER TABLE cso_inventory.masked ALTER mail DROP MASKED`},
		{"dropped_column", `ALTER TABLE cso_inventory.evolved DROP w`},
		{"table", `ALTER TABLE cso_inventory.options WITH gc_grace_seconds = 4712`},
		{"function", `CREATE OR REPLACE FUNCTION cso_inventory.plus_one(n int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return n; $$`},
		{"aggregate", `DROP AGGREGATE cso_inventory.total(int)`},
		{"indexe", `DROP INDEX cso_inventory.documents_size`},
		{"indexe", `DROP INDEX cso_inventory.devices_note`},
		{"view", `ALTER MATERIALIZED VIEW cso_inventory.devices_west WITH comment = 'x'`},
		{"type", `ALTER TYPE cso_inventory.address ADD more text`},
		{"role", `ALTER ROLE barred WITH LOGIN = true`},
		{"role_member", `REVOKE readers FROM writers`},
		{"role_permission", `REVOKE EXECUTE ON FUNCTION cso_inventory.plus_one(int) FROM app`},
		{"keyspace", `ALTER KEYSPACE cso_volatile WITH durable_writes = true`},
	}, func(change string) error { return c.Query(change).WithContext(t.Context()).Exec() })
}

func TestElasticsearch(t *testing.T) {
	l := serverOf(t, "elasticsearch", "", 1)
	was := judged(t, l, "elasticsearch-1", append(elasticsearchKinds, "script")...)
	members, err := l.Members("elasticsearch", "")
	if err != nil {
		t.Fatal(err)
	}
	seen(t, l, was, [][2]string{
		{"document", `PUT /cso-types/_doc/twice {"v":2}`},                      // its version and sequence number alone
		{"document", `PUT /cso-types/_doc/awkward%208 {"zebra": 1,"apple":2}`}, // and its bytes
		{"found", `PUT /cso-nosource/_doc/1 {"n":5}`},
		{"found", `PUT /cso-excludes/_doc/1 {"n":1,"secret":"another","kept":"k"}`},
		{"settings", `PUT /cso-devices/_settings {"index.refresh_interval":"2s"}`},
		{"mappings", `PUT /cso-empty/_mapping {"_meta":{"a":1}}`},
		{"aliases", `POST /_aliases {"actions":[{"add":{"index":"cso-devices","alias":"devices-routed","routing":"r2"}}]}`},
		{"index", `POST /cso-empty/_close`},
		{"template", `PUT /_template/old-style {"index_patterns":["o-*"]}`},
		{"component_template", `PUT /_component_template/basics {"template":{}}`},
		{"index_template", `DELETE /_index_template/unused`},
		{"pipeline", `PUT /_ingest/pipeline/nothing {"processors":[]}`},
		{"script", `DELETE /_scripts/question`},
		{"setting", `PUT /_cluster/settings {"transient":{"cluster.routing.allocation.cluster_concurrent_rebalance":4}}`},
		{"setting", `PUT /_cluster/settings {"persistent":{"search.max_buckets":20001}}`},
	}, func(change string) error { return send(t.Context(), members[0], change) })
	// The content of a closed index is compared, too.
	if err := send(t.Context(), members[0], "POST /cso-closed/_open"); err != nil {
		t.Fatal(err)
	}
	was = lines(t, l)
	for _, c := range []string{`PUT /cso-closed/_doc/1 {"n":7}`, "POST /cso-closed/_close"} {
		if err := send(t.Context(), members[0], c); err != nil {
			t.Fatal(err)
		}
	}
	if is := lines(t, l); !slices.ContainsFunc(without(was, is), func(l string) bool { return strings.HasPrefix(l, "document\t\"cso-closed\"") }) {
		t.Error("a document of a closed index was changed, and the fingerprint does not tell")
	}
}

// send sends "METHOD /path body" to a server without security.
func send(ctx context.Context, m engine.Member, text string) error {
	method, rest, _ := strings.Cut(text, " ")
	path, body, _ := strings.Cut(rest, " ")
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s:%d%s", m.Options["host"], m.Ports["http"], path), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("HTTP %d", res.StatusCode)
	}
	return nil
}
