package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// The labs of the kill matrix: databases (ArangoDB is simulated) and secrets on
// a second VM, whose worker only transfers; the first VM's worker is the control
// worker and protects the certificates. In trio the clusters have three members.
// wide and rings have the servers that take long to start, one and three of each;
// the worker reaches Cassandra by nodetool in the one and by Jolokia in the other.
var (
	two = &shared{components: []string{"mariadb", "etcd", "zookeeper", "arangodb", "secrets", "certificates"},
		remote: []string{"mariadb", "etcd", "zookeeper", "arangodb", "secrets"}, prepare: prepareKill}
	trio = &shared{components: []string{"etcd", "zookeeper", "secrets", "certificates"},
		remote: []string{"etcd", "zookeeper", "secrets"}, members: 3, prepare: prepareKill}
	wide = &shared{components: []string{"cassandra", "elasticsearch", "etcd", "secrets", "certificates"},
		remote: []string{"cassandra", "elasticsearch", "etcd", "secrets"}, prepare: prepareKill, slow: true}
	rings = &shared{components: []string{"cassandra", "elasticsearch", "etcd", "secrets", "certificates"},
		remote: []string{"cassandra", "elasticsearch", "etcd", "secrets"}, members: 3, prepare: prepareKill, slow: true,
		versions: map[string]string{"cassandra": "+jolokia"}}
)

// size is the number of servers of a component; 0 when it has no process.
func (s *shared) size(component string) int {
	switch {
	case component == "secrets" || component == "certificates":
		return 0
	case component == "mariadb":
		return 1 // the lab makes no clusters of it
	}
	return max(1, s.members)
}

// servers are the names of all database processes.
func (s *shared) servers() []string {
	var out []string
	for _, c := range s.components {
		for n := range s.size(c) {
			out = append(out, c+"-"+strconv.Itoa(n+1))
		}
	}
	return out
}

const (
	killBeat = 4 * time.Second // the heartbeat of the kill lab: a frozen worker is given up after it
	control  = "worker"        // member names of the lab
	agent    = "worker-2"
	engineOf = "temporald"
)

// prepareKill makes the estate's times short.
func prepareKill(l *lab.Lab) error { return prepareDrain(l, killBeat.String()) }

// prepareDrain sets the heartbeat and gives the estate a hook that waits
// until the ledger's writer has finished its transaction, as a product does
// whose services drain.
func prepareDrain(l *lab.Lab, heartbeat string) error {
	path := l.Dir() + "/estate.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	hook := l.Dir() + "/drain"
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexec flock -w 100 '"+l.LedgerLock()+"' true\n"), 0o700); err != nil {
		return err
	}
	with := strings.Replace(string(text), "heartbeat: 10s", "heartbeat: "+heartbeat+"\n    hooks:\n        enter_maintenance: ["+hook+"]", 1)
	if with == string(text) {
		return errors.New("the lab's estate file has no heartbeat: the kill matrix would wait for ever")
	}
	return os.WriteFile(path, []byte(with), 0o600)
}

// lasting does so where there is a MariaDB.
func (m *matrix) lasting() {
	m.b.t.Helper()
	if slices.Contains(m.lab.components, "mariadb") {
		m.b.lasting()
	}
}

// zones puts a wrecked time zone right: a MariaDB that is killed before the
// restore reads it at its start, keeps it until its next one, and translates
// the times of restored events by it. The plugin declares time zones as inexact.
func (m *matrix) zones() {
	m.b.t.Helper()
	if slices.Contains(m.lab.components, "mariadb") {
		m.b.sql("UPDATE mysql.time_zone_transition_type SET `Offset`=`Offset`-60 WHERE Time_zone_id=7001")
	}
}

// lasting turns the tables that live in memory into ones that outlive their
// server: what a killed MariaDB loses by design is not what is judged here.
func (b *bench) lasting() {
	b.t.Helper()
	b.sql("ALTER TABLE torture.e_memory ENGINE=InnoDB")
	b.sql("ALTER TABLE torture.e_archive ENGINE=InnoDB")
}

// sql runs a statement as the server's administrator, with its own client.
func (b *bench) sql(stmt string) string {
	b.t.Helper()
	ctx, done := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer done()
	cmd := exec.CommandContext(ctx, "mariadb", "--no-defaults", "-S", b.value("LAB_MARIADB_1_SOCKET"), "-u", b.value("LAB_MARIADB_1_USER"), "--batch", "--skip-column-names")
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+b.value("LAB_MARIADB_1_PASSWORD"))
	cmd.Stdin = strings.NewReader(stmt)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", stmt, err, out)
	}
	return string(out)
}

// process is one of the lab's processes, held by its pid: the matrix stops
// and starts it hundreds of times a second.
type process struct {
	b    *bench
	name string
	pid  int
}

func (b *bench) process(name string) *process {
	b.t.Helper()
	pid, err := b.Pid(name)
	b.check(err)
	if pid == 0 {
		b.t.Fatalf("%s does not run", name)
	}
	return &process{b, name, pid}
}

// stop returns when every thread of the process stands still.
func (p *process) stop() {
	p.b.t.Helper()
	p.b.check(unix.Kill(p.pid, unix.SIGSTOP))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		if p.standing() {
			return
		}
		if time.Now().After(end) {
			p.b.t.Fatalf("%s does not stop", p.name)
		}
	}
}

// turn lets the process work for a moment. On a busy machine a runnable process
// waits for its turn first: the moment grows by as much as the load is too high.
func (p *process) turn(moment time.Duration) {
	var load float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &load)
	}
	end := time.Now().Add(time.Duration(float64(moment) * max(1, load/float64(runtime.NumCPU()))))
	for time.Sleep(moment); time.Now().Before(end) && !p.every("SDIZX"); {
		time.Sleep(moment)
	}
}

func (p *process) standing() bool { return p.every("TtZX") }

// every says whether all threads are in one of the states.
func (p *process) every(states string) bool {
	dir := fmt.Sprintf("/proc/%d/task", p.pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return true // it is gone
	}
	for _, t := range tasks {
		text, err := os.ReadFile(dir + "/" + t.Name() + "/stat")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s := string(text)
		if i := strings.LastIndexByte(s, ')'); err != nil || i < 0 || i+2 >= len(s) || !strings.ContainsRune(states, rune(s[i+2])) {
			return false
		}
	}
	return true
}

func (p *process) thaw() { _ = unix.Kill(p.pid, unix.SIGCONT) } // it may have been killed meanwhile

// transient begins a line about settings that Elasticsearch forgets, by design, when its last server dies.
const transient = "setting\t\"transient\"\t"

// withoutLedger leaves the ledger's own lines out of a fingerprint: the writer
// changes them during a backup; and what a killed server forgets by design.
func (p print) withoutLedger() string {
	var out strings.Builder
	for l := range strings.Lines(p.text) {
		if !strings.Contains(l, engine.LedgerName) && !strings.HasPrefix(l, "fingerprint ") && !strings.HasPrefix(l, "ephemeral\t") && !strings.HasPrefix(l, transient) {
			out.WriteString(l)
		}
	}
	return out.String()
}

// withoutSwitch leaves the maintenance switch and the sums out of a fingerprint.
func (p print) withoutSwitch() string {
	var out strings.Builder
	for l := range strings.Lines(p.text) {
		if !strings.Contains(l, `"/lb/maintenance"`) && !strings.HasPrefix(l, "fingerprint ") {
			out.WriteString(l)
		}
	}
	return out.String()
}

// ledgerNumber fails unless every database knows the same transaction, and gives its number.
func (b *bench) ledgerNumber() int64 {
	b.t.Helper()
	g, err := b.OpenLedger(b.t.Context())
	b.check(err)
	defer g.Close()
	all, err := g.Read(b.t.Context())
	b.check(err)
	var n int64
	for _, v := range all {
		n = v
	}
	for _, v := range all {
		if v != n {
			b.t.Fatalf("one database knows a transaction that another does not: %v", all)
		}
	}
	return n
}

// besideLedger does something while the ledger's writer works.
func (b *bench) besideLedger(do func()) lab.LedgerCounts {
	b.t.Helper()
	g, err := b.OpenLedger(b.t.Context())
	b.check(err)
	defer g.Close()
	ctx, stop := context.WithCancel(b.t.Context())
	defer stop()
	type answer struct {
		n   lab.LedgerCounts
		err error
	}
	done := make(chan answer, 1)
	go func() {
		n, err := g.Write(ctx)
		done <- answer{n, err}
	}()
	do()
	stop()
	a := <-done
	b.check(a.err)
	return a.n
}

// notAs lists what in a fingerprint is not as in another one, of before or of
// a backup. A ZooKeeper node's counter of sequential children can only grow, so
// one that an earlier restore had raised stays where it is: the plugin declares that.
// A table that the server could not open before is in no safety backup, which
// says so: after a rollback it may be missing.
func notAs(want, got string) string {
	next := func(text string) (rest string, counters map[string]int) {
		var out strings.Builder
		counters = map[string]int{}
		for l := range strings.Lines(text) {
			var n int
			f := strings.Split(strings.TrimSpace(l), "\t")
			if len(f) == 3 && f[0] == "sequence" {
				if _, err := fmt.Sscanf(f[2], "next=%d", &n); err == nil {
					counters[f[1]] = n
					continue
				}
			}
			if !strings.HasPrefix(l, "fingerprint ") && !strings.HasPrefix(l, "ephemeral\t") && !strings.HasPrefix(l, transient) {
				out.WriteString(l)
			}
		}
		return out.String(), counters
	}
	wantRest, old := next(want)
	gotRest, grown := next(got)
	var opened strings.Builder
	for l := range strings.Lines(wantRest) {
		at := strings.Index(l, "\tunreadable: error ")
		if at < 0 || strings.Contains(gotRest, l[:at+1]) {
			opened.WriteString(l)
		}
	}
	wantRest = opened.String()
	out := different(wantRest, gotRest)
	for node, n := range old {
		if grown[node] < n {
			out += fmt.Sprintf("\ncounter of %s: %d, want %d", node, grown[node], n)
		}
	}
	for node := range grown {
		if _, ok := old[node]; !ok {
			out += "\ncounter of " + node + " is new"
		}
	}
	return out
}

// back fails unless the estate is as it was, but for what notAs allows.
func (b *bench) back(before print) {
	b.t.Helper()
	if d := notAs(before.text, b.fingerprint().text); d != "" {
		b.t.Fatalf("the estate is not as it was (-want +got):\n%s", d)
	}
}
