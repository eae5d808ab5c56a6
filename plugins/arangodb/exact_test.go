package arangodb_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

func differences(t testing.TB, on plugins.Target, r plugins.ArtifactReader) (out []plugins.Difference) {
	t.Helper()
	must(t, in(t, on, func(s plugins.Session) (err error) {
		out, err = s.Compare(t.Context(), newRun(t, plugins.OpInspect), r)
		return err
	}))
	return out
}

// TestSimulatedExactDocuments: bit for bit as JSON, up to 16 MB, through both interfaces.
func TestSimulatedExactDocuments(t *testing.T) {
	docs := []string{
		`{"_key":"large","v":"` + strings.Repeat("0123456789abcde\\n", 1_000_000) + `"}`,
		`{"_key":"deep","v":` + strings.Repeat(`{"a":[`, 70) + `9007199254740993` + strings.Repeat(`]}`, 70) + `}`,
		`{"_key":"envelope","type":2300,"data":{"_key":"other"},"key":"other","tick":"1"}`,
		`{"_key":"order","z":1,"a":2,"Z":3,"0":4,"":5,"ä":6}`,
		`{"_key":"numbers","v":[9223372036854775807,-9223372036854775808,18446744073709551615,0.1,1e+300,5e-324,-0.5,123456789.123]}`,
		`{"_key":"text","v":["\u0000\u001f\"\\/","日本語 🚀 \u2028","<&>",""]}`,
		`{"_key":"(+,=;$!*'%)a:b@c.d-e_f","v":null}`,
	}
	for _, native := range []string{"no", "yes"} {
		for i, cfg := range modes {
			docs := docs
			if native == "yes" || i > 0 { // much data once is enough
				docs = docs[1:]
			}
			t.Run("simulated "+cfg.Mode+" native "+native, func(t *testing.T) {
				s := start(t, cfg)
				on := s.target(t, "central")
				for _, m := range on.Members {
					m.Options["native"] = native
				}
				a := foreign(t, on)
				defer a.close()
				a.do("POST", "_system", "/_api/collection", obj{"name": "odd"})
				for _, d := range docs {
					a.do("POST", "_system", "/_api/document/odd", d)
				}
				read := func() (out []string) {
					for _, d := range docs {
						var k struct {
							Key string `json:"_key"`
						}
						must(t, json.Unmarshal([]byte(d), &k))
						out = append(out, given.ReplaceAllString(string(a.do("GET", "_system", "/_api/document/odd/"+url.PathEscape(k.Key), nil)), ""))
					}
					return out
				}
				want := read()
				m := plugintest.NewMemory()
				_, err := backUp(t, on, m)
				must(t, err)
				a.do("DELETE", "_system", "/_api/collection/odd", nil)
				must(t, restore(t, on, m))
				for i, got := range read() {
					if got != want[i] {
						t.Errorf("document %.60s came back as %.200s", want[i], got)
					}
				}
				if d := differences(t, on, m); len(d) > 0 {
					t.Errorf("%+v", d)
				}
			})
		}
	}
}

// TestSimulatedUniqueSwap: documents that stand in each other's way of a unique index are put back.
func TestSimulatedUniqueSwap(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		a.do("POST", "_system", "/_api/collection", obj{"name": "ring", "numberOfShards": 1})
		a.do("POST", "_system", "/_api/index?collection=ring", obj{"type": "persistent", "fields": []string{"n"}, "unique": true, "name": "n"})
		put := func(shift int) {
			a.do("PUT", "_system", "/_api/collection/ring/truncate", nil)
			var docs []string
			for i := range 50 {
				docs = append(docs, fmt.Sprintf(`{"_key":"k%02d","n":%d}`, i, (i+shift)%50))
			}
			a.do("POST", "_system", "/_api/document/ring", "["+strings.Join(docs, ",")+"]")
		}
		put(0)
		want := a.docs("_system", "ring")
		m := plugintest.NewMemory()
		_, err := backUp(t, w.on, m)
		must(t, err)
		put(1)
		must(t, restore(t, w.on, m))
		if d := cmp.Diff(want, a.docs("_system", "ring")); d != "" {
			t.Errorf("documents: %s", d)
		}
	})
}

// TestSimulatedIndexes: every kind of index comes back, over documents that were there before.
func TestSimulatedIndexes(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		a.do("POST", "_system", "/_api/collection", obj{"name": "indexed"})
		var docs []string
		for i := range 60 {
			docs = append(docs, fmt.Sprintf(`{"_key":"k%d","x":%d.5,"y":%d,"p":"a","text":"t%d","at":%d,"place":[%d,%d],"vec":[%d,1,2,3]}`, i, i, 60-i, i, 4_000_000_000+i, i, i, i))
		}
		a.do("POST", "_system", "/_api/document/indexed", "["+strings.Join(docs, ",")+"]")
		for _, x := range []obj{
			{"type": "persistent", "name": "p1", "fields": []string{"p", "x"}, "sparse": true, "storedValues": []string{"y"}, "cacheEnabled": true, "deduplicate": false, "estimates": false},
			{"type": "ttl", "name": "t1", "fields": []string{"at"}, "expireAfter": 10},
			{"type": "geo", "name": "g1", "fields": []string{"place"}},
			{"type": "mdi", "name": "m1", "fields": []string{"x", "y"}, "fieldValueTypes": "double"},
			{"type": "mdi-prefixed", "name": "m2", "fields": []string{"x", "y"}, "prefixFields": []string{"p"}, "fieldValueTypes": "double"},
			{"type": "inverted", "name": "i1", "fields": []obj{{"name": "text", "analyzer": "identity"}}, "primarySort": obj{"fields": []obj{{"field": "x", "direction": "asc"}}}},
			{"type": "vector", "name": "v1", "fields": []string{"vec"}, "params": obj{"metric": "l2", "dimension": 4, "nLists": 2}},
		} {
			if code, out, err := a.try("POST", "_system", "/_api/index?collection=indexed", x); err != nil || code >= 300 {
				t.Errorf("%v: %v HTTP %d %s", x["type"], err, code, out)
			}
		}
		want := fingerprint(t, w.on)
		m := plugintest.NewMemory()
		_, err := backUp(t, w.on, m)
		must(t, err)
		a.do("DELETE", "_system", "/_api/collection/indexed", nil)
		must(t, restore(t, w.on, m))
		if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(fingerprint(t, w.on), "\n")); d != "" {
			t.Errorf("fingerprint: %s", d)
		}
	})
}

// TestSimulatedExpiry: what the server has removed by a TTL index is no difference, and is not written back.
func TestSimulatedExpiry(t *testing.T) {
	w := newWorld(t, server.Config{Version: "3.12", Mode: "single", TTLInterval: 100 * time.Millisecond})
	a := foreign(t, w.on)
	defer a.close()
	a.do("POST", "_system", "/_api/collection", obj{"name": "sessions"})
	a.do("POST", "_system", "/_api/document/sessions", fmt.Sprintf(`[{"_key":"short","at":%d},{"_key":"long","at":4000000000}]`, time.Now().Unix()+2))
	a.do("POST", "_system", "/_api/index?collection=sessions", obj{"type": "ttl", "fields": []string{"at"}, "expireAfter": 0, "name": "ttl"})
	m := plugintest.NewMemory()
	_, err := backUp(t, w.on, m)
	must(t, err)
	for deadline := time.Now().Add(20 * time.Second); len(a.docs("_system", "sessions")) > 1; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing expired: nothing is tested")
		}
	}
	if d := differences(t, w.on, m); len(d) > 0 {
		t.Errorf("what has expired is a difference: %+v", d)
	}
	a.do("DELETE", "_system", "/_api/collection/sessions", nil)
	must(t, restore(t, w.on, m))
	if got := a.docs("_system", "sessions"); len(got) != 1 || !strings.Contains(got[0], "long") {
		t.Errorf("after the restore: %q", got)
	}
}

// TestSimulatedGenerators: the next key lies above every key that was ever given out.
func TestSimulatedGenerators(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		next := func() *big.Int {
			t.Helper()
			var d struct {
				Key string `json:"_key"`
			}
			must(t, json.Unmarshal(a.do("POST", "shop", "/_api/document/orders", `{}`), &d))
			n, ok := new(big.Int).SetString(d.Key, 10)
			if !ok {
				t.Fatalf("key %q is no number", d.Key)
			}
			return n
		}
		last := next()
		m := plugintest.NewMemory()
		_, err := backUp(t, w.on, m)
		must(t, err)
		a.do("PUT", "shop", "/_api/collection/orders/truncate", nil)
		must(t, restore(t, w.on, m))
		if n := next(); n.Cmp(last) <= 0 {
			t.Errorf("after a truncation: key %s, given out before: %s", n, last)
		}
		a.do("DELETE", "shop", "/_api/collection/orders", nil)
		must(t, restore(t, w.on, m))
		if n := next(); n.Cmp(last) <= 0 {
			t.Errorf("after the collection was made anew: key %s, given out before: %s", n, last)
		}
	})
}

// TestSimulatedOtherMode: a backup of a single server is restored onto a cluster, and the plan says what is not exact.
func TestSimulatedOtherMode(t *testing.T) {
	from, to := newWorld(t, modes[0]), newWorld(t, modes[1])
	must(t, in(t, to.on, func(s plugins.Session) error {
		p, err := s.(plugins.Planner).Plan(t.Context(), newRun(t, plugins.OpInspect), from.clean)
		if !slices.ContainsFunc(p.Inexact, func(i plugins.Inexact) bool { return strings.Contains(i.What, "sharding") }) {
			t.Errorf("the plan does not say that sharding is not exact: %+v", p.Inexact)
		}
		return err
	}))
	must(t, restore(t, to.on, from.clean))
	if d := differences(t, to.on, from.clean); len(d) > 0 {
		t.Errorf("%+v", d)
	}
	keep := func(print string) (out []string) {
		for l := range strings.SplitSeq(print, "\n") {
			if k, _, _ := strings.Cut(l, "\t"); k != "collection" && k != "index" {
				out = append(out, l)
			}
		}
		return out
	}
	if d := cmp.Diff(keep(from.print), keep(fingerprint(t, to.on))); d != "" {
		t.Errorf("the fingerprint differs: %.3000s", d)
	}
}

// TestSimulatedRootPassword: the password that the sessions themselves use is put back, too, and no account of an
// attempt stays behind.
func TestSimulatedRootPassword(t *testing.T) {
	everyMode(t, func(t *testing.T, w *world) {
		a := foreign(t, w.on)
		defer a.close()
		a.do("PATCH", "_system", "/_api/user/root", obj{"passwd": "another"})
		changed := w.target(t, "central")
		must(t, os.WriteFile(changed.Members[0].Options["password_file"], []byte("another"), 0o600))
		must(t, restore(t, changed, w.clean))
		if _, err := backUp(t, changed, plugintest.NewMemory()); !errors.Is(err, plugins.ErrAuth) {
			t.Errorf("the password of later still opens: %v", err)
		}
		w.same(t) // by the password of then
		var users struct{ Result []struct{ User string } }
		a.get("_system", "/_api/user", &users)
		for _, u := range users.Result {
			if strings.HasPrefix(u.User, "cso-backup-") {
				t.Errorf("account %s was left behind", u.User)
			}
		}
	})
}
