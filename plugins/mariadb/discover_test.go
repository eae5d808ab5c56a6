package mariadb

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// host makes a root directory with the given files.
func host(t *testing.T, files map[string]string) *Plugin {
	t.Helper()
	p := &Plugin{root: t.TempDir()}
	for name, text := range files {
		path := filepath.Join(p.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", p.root)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func discovered(t *testing.T, p *Plugin) plugins.Target {
	t.Helper()
	found, err := p.Discover(t.Context())
	if err != nil || len(found) != 1 || len(found[0].Members) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	return found[0]
}

func opens(t *testing.T, on plugins.Target) error {
	t.Helper()
	s, err := New().Open(t.Context(), on)
	if err != nil {
		return err
	}
	_, err = s.Health(t.Context())
	return errors.Join(err, s.Close())
}

// TestDiscover: the option files as Debian lays them out, with the server's
// own configuration below them, lead to the running server.
func TestDiscover(t *testing.T) {
	m := server[0]
	files := map[string]string{
		"etc/mysql/my.cnf":                           "[client-server]\nsocket = /nowhere.sock\n!includedir ROOT/etc/mysql/mariadb.conf.d/\n!include ROOT/none.cnf\n",
		"etc/mysql/mariadb.conf.d/50-server.cnf":     content(t, filepath.Join(m.Dir, "my.cnf")),
		"etc/mysql/mariadb.conf.d/50-server.cnf.bak": "[mysqld]\nsocket=/nowhere.sock\n",
		"root/.my.cnf":                               content(t, m.Options["client_config"]),
	}
	p := host(t, files)
	on := discovered(t, p)
	address, options := target().Members[0].Address, target().Members[0].Options
	want := plugins.Target{Component: "mariadb", Instance: plugins.DefaultInstance, Members: []plugins.Member{{Name: "mariadb-1", Address: address, Options: map[string]string{
		"socket": options["socket"], "data_dir": filepath.Join(m.Dir, "data"), "defaults_file": filepath.Join(p.root, "root/.my.cnf"),
	}}}}
	if d := cmp.Diff(want, on); d != "" {
		t.Error(d)
	}
	if err := opens(t, on); err != nil {
		t.Errorf("through the socket: %v", err)
	}
	delete(on.Members[0].Options, "socket")
	if err := opens(t, on); err != nil {
		t.Errorf("through TCP: %v", err)
	}
	on.Members[0].Options["user"] = "nobody-of-this-name"
	if err := opens(t, on); !errors.Is(err, plugins.ErrAuth) {
		t.Errorf("the user that the estate file names does not win: %v", err)
	}

	t.Run("wrong password", func(t *testing.T) {
		files["root/.my.cnf"] = "[client]\nuser=root\npassword=\"geheim # 1\"\n"
		err := opens(t, discovered(t, host(t, files)))
		if !errors.Is(err, plugins.ErrAuth) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v", err)
		}
	})
	t.Run("standard socket", func(t *testing.T) {
		p := host(t, map[string]string{"root/.my.cnf": content(t, m.Options["client_config"])})
		if err := os.MkdirAll(filepath.Join(p.root, "run/mysqld"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(options["socket"], filepath.Join(p.root, "run/mysqld/mysqld.sock")); err != nil {
			t.Fatal(err)
		}
		if err := opens(t, discovered(t, p)); err != nil {
			t.Error(err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		for name, conf := range map[string]string{"nothing installed": "", "not running": "[mysqld]\nsocket=/nowhere.sock\nport=1\n", "no network": "[mysqld]\nsocket=/nowhere.sock\nskip-networking\n"} {
			p := &Plugin{root: t.TempDir()}
			if conf != "" {
				p = host(t, map[string]string{"etc/my.cnf": conf})
			}
			if found, err := p.Discover(t.Context()); err != nil || len(found) != 0 {
				t.Errorf("%s: found %+v, %v", name, found, err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if found, err := p.Discover(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("found %+v, %v", found, err)
		}
	})
}

// TestDiscover_socketLogin: without /root/.my.cnf the operating system's root
// is the server's root, as the packages set it up.
func TestDiscover_socketLogin(t *testing.T) {
	p := host(t, map[string]string{"etc/mysql/my.cnf": content(t, filepath.Join(second[0].Dir, "my.cnf"))})
	on := discovered(t, p)
	if _, ok := on.Members[0].Options["defaults_file"]; ok {
		t.Errorf("options %v", on.Members[0].Options)
	}
	if err := opens(t, on); !errors.Is(err, plugins.ErrAuth) {
		t.Fatalf("a server with a password: %v", err)
	}
	s, err := New().Open(t.Context(), targetOf(second))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db := s.(*session).db
	hash, err := value(t.Context(), db, "SELECT JSON_VALUE(Priv,'$.authentication_string') FROM mysql.global_priv WHERE User='root' AND Host='localhost'")
	if err != nil || hash == "" {
		t.Fatalf("root's account: %q, %v", hash, err)
	}
	native := "mysql_native_password USING " + lit(hash)
	t.Cleanup(func() {
		s, err := New().Open(context.Background(), targetOf(second))
		if err == nil {
			_, err = s.(*session).db.Exec("ALTER USER root@localhost IDENTIFIED VIA " + native)
			s.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	if _, err := db.ExecContext(t.Context(), "ALTER USER root@localhost IDENTIFIED VIA "+native+" OR unix_socket"); err != nil {
		t.Fatal(err)
	}
	if err := opens(t, on); err != nil {
		t.Error(err)
	}
}

// TestReadDefaults: option files are read as MariaDB's own my_print_defaults reads them.
func TestReadDefaults(t *testing.T) {
	p := host(t, map[string]string{
		"my.cnf": "# comment\n[client]\nuser = root\nuser=admin ; still\npassword='it''s # no \\' comment' # comment\n" +
			"[mysql]\nuser=wrong\n[client-mariadb]\nssl_ca=a\\tb\\qc\\\\d\\s\nempty=\nplain\n  host=\"x y\"\n!include ROOT/more.cnf\n[ client ]\n!includedir ROOT/d\n",
		"more.cnf":  "[client]\nport = 2\nhalf=\"quoted\nsingle='\n",
		"d/b.cnf":   "[client]\norder=b\n",
		"d/a.cnf":   "[client]\norder=a\n",
		"d/c.other": "[client]\norder=c\n",
	})
	path := filepath.Join(p.root, "my.cnf")
	cmd := exec.Command("my_print_defaults", "--defaults-file="+path)
	cmd.Args = append(cmd.Args, clientGroups...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	want := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, v, _ := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "--"), "=")
		want[strings.ReplaceAll(name, "_", "-")] = v
	}
	got, err := readDefaults(path, clientGroups...)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" || got["order"] != "b" || len(got) < 8 {
		t.Errorf("-my_print_defaults +this package:\n%s\n%q", d, got)
	}

	loop := host(t, map[string]string{"my.cnf": "!include ROOT/my.cnf\n"})
	if _, err := readDefaults(filepath.Join(loop.root, "my.cnf"), "client"); !errors.Is(err, plugins.ErrConfig) {
		t.Errorf("a file that includes itself: %v", err)
	}
}
