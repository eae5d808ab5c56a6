package zookeeper_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

var world = zk.WorldACL(zk.PermAll)

// TestEdges shares one server.
func TestEdges(t *testing.T) {
	l := servers(t, 1, "zookeeper")
	on := target(t, l, "central")
	for _, c := range []struct {
		name string
		run  func(*testing.T, plugins.Target)
	}{
		{"without the super user", withoutSuper}, {"without data_dir", withoutFiles}, {"ephemerals", ephemerals},
		{"counter", counter}, {"types", types}, {"largest data", largest}, {"hostile records", hostile}, {"lapsed", lapsed},
	} {
		t.Run(c.name, func(t *testing.T) {
			clearAll(t, on)
			c.run(t, on)
		})
	}
}

func create(t testing.TB, c *zk.Conn, p string, data []byte, flags int32, acl []zk.ACL) {
	t.Helper()
	if _, err := c.Create(p, data, flags, acl); err != nil {
		t.Fatalf("%s: %v", p, err)
	}
}

var epoch uint64 = 100

func restore(t testing.TB, s plugins.Session, m *plugintest.Memory) plugins.Report {
	t.Helper()
	epoch++
	r := run(t, plugins.OpRestore, epoch)
	rep, err := s.Restore(t.Context(), r, m)
	must(t, err)
	d, err := s.Compare(t.Context(), r, m)
	must(t, err)
	if len(d) != 0 {
		t.Errorf("differences after the restore: %+v", d)
	}
	return rep
}

func without(on plugins.Target, option string) plugins.Target {
	on.Members = append([]plugins.Member(nil), on.Members...)
	opts := map[string]string{}
	for k, v := range on.Members[0].Options {
		if k != option {
			opts[k] = v
		}
	}
	on.Members[0].Options = opts
	return on
}

func withoutSuper(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	create(t, c, "/secret", nil, 0, zk.DigestACL(zk.PermAll, "somebody", "else"))
	s := open(t, without(on, "auth_file"))
	h := health(t, s)
	if h.Grade != plugins.Red || !strings.Contains(fmt.Sprint(h.Reasons), "/secret") || !strings.Contains(fmt.Sprint(h.Reasons), "auth_file") {
		t.Errorf("health %+v: want RED, the znode named", h)
	}
	if _, err := s.Backup(t.Context(), run(t, plugins.OpBackup, 1), plugintest.NewMemory()); !errors.Is(err, plugins.ErrAuth) || !strings.Contains(err.Error(), "/secret") {
		t.Errorf("backup %v: want ErrAuth naming the znode", err)
	}
	if h := health(t, open(t, on)); h.Grade != plugins.Green || h.Empty {
		t.Errorf("health with the super user %+v", h)
	}
}

func withoutFiles(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	create(t, c, "/a", []byte("x"), 0, zk.DigestACL(zk.PermAll, "a", "b"))
	create(t, c, "/null", nil, 0, world)
	create(t, c, "/empty", []byte{}, 0, world)
	_, err := c.CreateContainer("/container", nil, zk.FlagContainer, world)
	must(t, err)
	with, _ := backup(t, open(t, on))
	blind, rep := backup(t, open(t, without(on, "data_dir")))
	if len(rep.Inexact) != 1 || !strings.Contains(rep.Inexact[0].What, "container") {
		t.Errorf("inexact %+v", rep.Inexact)
	}
	slow := without(on, "data_dir")
	slow.Members[0].Options["bulk_reads"] = "no"
	single, _ := backup(t, open(t, slow))
	for i, a := range with.Artifacts() {
		if b := single.Artifacts()[i]; a.Name == "tree" && a.Digest != b.Digest {
			t.Errorf("bulk and single reads differ: %v %v", a, b)
		}
		if b := blind.Artifacts()[i]; a.Name == "tree" && a.Digest != b.Digest {
			t.Errorf("access lists from the server's files and from the server differ: %v %v", a, b)
		}
	}
}

// ephemerals are spared, except below znodes that must go and where the backup has another znode.
func ephemerals(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	create(t, c, "/keep", nil, 0, world)
	create(t, c, "/lock", []byte("persistent"), 0, world)
	s := open(t, on)
	m, _ := backup(t, s)
	must(t, c.Delete("/lock", -1))
	create(t, c, "/lock", nil, zk.FlagEphemeral, world)
	create(t, c, "/keep/alive", nil, zk.FlagEphemeral, world)
	create(t, c, "/later", nil, 0, world)
	create(t, c, "/later/alive", nil, zk.FlagEphemeral, world)
	rep := restore(t, s, m)
	if len(rep.Warnings) != 1 || !strings.Contains(rep.Warnings[0], "/later/alive") || !strings.Contains(rep.Warnings[0], "/lock") {
		t.Errorf("warnings %q", rep.Warnings)
	}
	if ok, _, err := c.Exists("/keep/alive"); err != nil || !ok {
		t.Errorf("a live session lost its znode: %v", err)
	}
	if b, st, err := c.Get("/lock"); err != nil || string(b) != "persistent" || st.EphemeralOwner != 0 {
		t.Errorf("/lock: %q %v", b, err)
	}
}

// counter: the next number is what it would have been, also where all children are gone.
func counter(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	create(t, c, "/queue", nil, 0, world)
	for range 1500 {
		name, err := c.Create("/queue/n-", nil, zk.FlagSequence, world)
		must(t, err)
		must(t, c.Delete(name, -1))
	}
	s := open(t, on)
	m, _ := backup(t, s)
	must(t, c.Delete("/queue", -1))
	create(t, c, "/queue", nil, 0, world)
	restore(t, s, m)
	name, err := c.Create("/queue/n-", nil, zk.FlagSequence, world)
	must(t, err)
	if name != "/queue/n-0000001500" {
		t.Errorf("next sequential znode %s, want number 1500", name)
	}
	must(t, c.Delete(name, -1))
	if rep := restore(t, s, m); rep.Records != 0 {
		t.Errorf("a counter that runs ahead was touched: %+v", rep)
	}
}

// types: a znode of another type is made anew, with what is below it.
func types(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	_, err := c.CreateContainer("/c", []byte("c"), zk.FlagContainer, world)
	must(t, err)
	create(t, c, "/c/x", []byte("x"), 0, world)
	create(t, c, "/c/x/y", nil, 0, world)
	_, err = c.CreateTTL("/t", nil, zk.FlagTTL, world, 3_600_000_000_000)
	must(t, err)
	s := open(t, on)
	m, rep := backup(t, s)
	if len(rep.Inexact) != 0 {
		t.Fatalf("types unknown: %+v", rep)
	}
	for _, p := range []string{"/c/x/y", "/c/x", "/c", "/t"} {
		must(t, c.Delete(p, -1))
	}
	for _, p := range []string{"/c", "/c/x", "/c/x/y", "/c/z", "/t"} {
		create(t, c, p, nil, 0, world)
	}
	r := run(t, plugins.OpInspect, 1)
	d, err := s.Compare(t.Context(), r, m)
	must(t, err)
	if !strings.Contains(fmt.Sprint(d), "types") {
		t.Errorf("another type is no difference: %+v", d)
	}
	restore(t, s, m)
	again, _ := backup(t, s)
	for i, a := range m.Artifacts() {
		if b := again.Artifacts()[i]; a.Name != "stats" && a.Digest != b.Digest {
			t.Errorf("artifact %s is not as it was", a.Name)
		}
	}
}

// largest: the largest data a server takes, which fits into no multi beside anything else.
func largest(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	big := bytes.Repeat([]byte{7}, 1_048_575-64)
	create(t, c, "/big", big, 0, world)
	create(t, c, "/big2", big, 0, world)
	s := open(t, on)
	m, _ := backup(t, s)
	must(t, c.Delete("/big", -1))
	_, err := c.Set("/big2", big[:10], -1)
	must(t, err)
	restore(t, s, m)
}

func hostile(t *testing.T, on plugins.Target) {
	s := open(t, on)
	const acl = `[["rwcda","world","anyone"]]` + "\n"
	for name, recs := range map[string][][2]string{
		"server's own":    {{"/", acl + "-"}, {"/zookeeper/config", acl + "+x"}},
		"product's own":   {{"/", acl + "-"}, {"/cso-backup/epoch", acl + "+0 0"}},
		"no parent":       {{"/", acl + "-"}, {"/a/b", acl + "-"}},
		"dots":            {{"/", acl + "-"}, {"/a/../b", acl + "-"}},
		"relative":        {{"/", acl + "-"}, {"a", acl + "-"}},
		"no root":         {},
		"no access list":  {{"/", "-"}},
		"strange marker":  {{"/", acl + "*"}},
		"unknown permit":  {{"/", `[["z","world","anyone"]]` + "\n-"}},
		"not UTF-8":       {{"/", acl + "-"}, {"/\xff", acl + "-"}},
		"quota not whole": {{"/", acl + "-"}, {"/zookeeper/quota/zookeeper_stats", acl + "+count=1,bytes=1"}},
	} {
		m := plugintest.NewMemory()
		for _, a := range []string{"tree", "types", "stats"} {
			w, err := m.Create(t.Context(), plugins.Artifact{Name: a, Form: plugins.Ordered, Pin: "p", Volatile: a != "tree"})
			must(t, err)
			if a == "tree" {
				for _, r := range recs {
					must(t, w.Put([]byte(r[0]), []byte(r[1])))
				}
			}
			must(t, w.Commit())
		}
		epoch++
		if _, err := s.Restore(t.Context(), run(t, plugins.OpRestore, epoch), m); !errors.Is(err, plugins.ErrData) && !errors.Is(err, plugins.ErrCorrupt) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// lapsed: what the server removes by itself is no difference.
func lapsed(t *testing.T, on plugins.Target) {
	c := client(t, on, 0)
	defer c.Close()
	_, err := c.CreateTTL("/ttl", nil, zk.FlagTTL, world, 3_600_000_000_000)
	must(t, err)
	create(t, c, "/plain", nil, 0, world)
	s := open(t, on)
	m, _ := backup(t, s)
	must(t, c.Delete("/ttl", -1))
	r := run(t, plugins.OpInspect, 1)
	if d, err := s.Compare(t.Context(), r, m); err != nil || len(d) != 0 {
		t.Errorf("an expired TTL znode is a difference: %+v %v", d, err)
	}
	must(t, c.Delete("/plain", -1))
	if d, err := s.Compare(t.Context(), r, m); err != nil || len(d) != 1 || d[0].Foreign {
		t.Errorf("%+v %v: want one difference, not foreign without a restore", d, err)
	}
	left, err := os.ReadDir(r.Scratch)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("%s holds %v", filepath.Base(r.Scratch), left)
	}
}
