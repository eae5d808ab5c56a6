package zookeeper_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

func TestMain(m *testing.M) { plugintest.Main(m, zookeeper.New()) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// servers starts real servers, which end with the test.
func servers(t testing.TB, members int, components ...string) *lab.Lab {
	t.Helper()
	l, err := lab.Start(context.Background(), lab.Options{Components: components, Members: members, ServersOnly: true, Out: os.Stderr})
	must(t, err)
	t.Cleanup(func() { must(t, l.Down(context.Background())) })
	return l
}

// target is an instance of the lab as the estate file names it.
func target(t testing.TB, l *lab.Lab, instance string) plugins.Target {
	t.Helper()
	ms, err := l.Members("zookeeper", instance)
	must(t, err)
	out := plugins.Target{Component: "zookeeper", Instance: instance}
	for _, m := range ms {
		addr, opts, err := l.Target(m.Name)
		must(t, err)
		out.Members = append(out.Members, plugins.Member{Name: m.Name, VM: "vm", Address: addr, Options: opts})
	}
	return out
}

// unit names one instance to the lab; without "@" it would mean all of them.
func unit(t plugins.Target) string { return t.Component + "@" + t.Instance }

func fingerprint(t testing.TB, l *lab.Lab, on plugins.Target) string {
	t.Helper()
	var b strings.Builder
	_, err := l.Fingerprint(context.Background(), &b, unit(on))
	must(t, err)
	var keep []string
	for line := range strings.Lines(b.String()) {
		if !strings.Contains(line, "ephemeral\t") { // sessions of the filler; never restored
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

// client is a foreign client with the super user's rights; the caller closes it.
func client(t testing.TB, on plugins.Target, member int) *zk.Conn {
	t.Helper()
	m := on.Members[member]
	c, events, err := zk.Connect([]string{m.Address}, 30*time.Second, zk.WithLogInfo(false))
	must(t, err)
	deadline := time.After(10 * time.Second)
	for c.State() != zk.StateHasSession {
		select {
		case <-events:
		case <-deadline:
			t.Fatalf("%s gives no session", m.Name)
		}
	}
	auth, err := m.Secret("auth")
	must(t, err)
	scheme, cred, _ := strings.Cut(auth, " ")
	must(t, c.AddAuth(scheme, []byte(cred)))
	return c
}
