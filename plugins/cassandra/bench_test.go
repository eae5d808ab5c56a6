package cassandra

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/test/lab"
)

// BenchmarkNode measures one node with CSO_BENCH_MB (default 1024) megabytes of files, default collector and
// compiler, beside `cp` of the same files and `nodetool import` alone, on the same disk, synced, alternating;
// the best of CSO_BENCH_ROUNDS (default 3) counts.
//
//	TMPDIR=/var/tmp go test -run '^$' -bench Node -benchtime 1x -timeout 1h ./plugins/cassandra
func BenchmarkNode(b *testing.B) {
	for b.Loop() {
		benchNode(b)
	}
}

func env(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

func cpu() time.Duration {
	var r, c unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &c)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano() + c.Utime.Nano() + c.Stime.Nano())
}

type measured struct {
	b     *testing.B
	best  map[string]time.Duration
	order []string
	note  map[string]string
}

// time runs once and keeps the best; what is written is on the disk when it ends.
func (m *measured) time(name, dir string, do func()) {
	unix.Sync()
	start, used := time.Now(), cpu()
	do()
	if dir != "" {
		must(m.b, syncDir(dir))
	}
	took := time.Since(start)
	if best, ok := m.best[name]; !ok || took < best {
		if !ok {
			m.order = append(m.order, name)
		}
		m.best[name], m.note[name] = took, fmt.Sprintf("%.1f s CPU of client", (cpu()-used).Seconds())
	}
}

func benchNode(b *testing.B) {
	dir := b.TempDir()
	l, err := lab.Start(context.Background(), lab.Options{Dir: filepath.Join(dir, "lab"), Components: []string{"cassandra"}, Members: 1, ServersOnly: true,
		Versions: map[string]string{"cassandra": version + "+bench"}, Out: os.Stderr})
	must(b, err)
	defer func() { must(b, l.Down(context.Background())) }()
	r := newRig(b, &bench{lab: l}, "central")
	mb := env("CSO_BENCH_MB", 1024)
	r.load(mb)
	m := &measured{b: b, best: map[string]time.Duration{}, note: map[string]string{}}
	k := newVault(b, dir)
	s, err := New().Open(b.Context(), r.on)
	must(b, err)
	defer s.Close()
	run := plugins.Run{Epoch: uint64(time.Now().Unix()), Operation: plugins.OpBackup, Backup: "BENCH/2026-01-02T03-04-05Z", Attempt: "1", Parallel: 2, Scratch: b.TempDir(), Log: slog.New(slog.DiscardHandler)}
	peak := watchMemory()
	var ref store.Ref
	for range env("CSO_BENCH_ROUNDS", 3) {
		r.nodetool("snapshot", "-t", "bench", "load")
		from, err := filepath.Glob(filepath.Join(r.on.Members[0].Options["data_dir"], "load", "t-*", "snapshots", "bench"))
		must(b, err)
		to := filepath.Join(dir, "copy")
		m.time("cp", dir, func() { must(b, exec.Command("cp", "-r", from[0], to).Run()) })
		must(b, os.RemoveAll(to))
		r.nodetool("clearsnapshot", "-t", "bench")

		m.time("backup, pin and copy into the store", "", func() { ref = k.copy(s, run, fmt.Sprint("FULL", len(m.order))) })
		m.time("second backup, nothing changed", "", func() { ref = k.copy(s, run, "SECOND") })
		k.renew()
	}
	ref = k.copy(s, run, "LAST")
	u := k.open(ref)
	for range env("CSO_BENCH_ROUNDS", 3) {
		stage := filepath.Join(filepath.Dir(r.on.Members[0].Options["data_dir"]), "bench", "load", "t")
		must(b, os.MkdirAll(stage, 0o700))
		r.nodetool("snapshot", "-t", "bench", "load")
		from, err := filepath.Glob(filepath.Join(r.on.Members[0].Options["data_dir"], "load", "t-*", "snapshots", "bench", "*.*"))
		must(b, err)
		for _, f := range from {
			must(b, os.Link(f, filepath.Join(stage, filepath.Base(f))))
		}
		r.nodetool("clearsnapshot", "-t", "bench")
		r.do("TRUNCATE load.t")
		m.time("nodetool import of linked files", "", func() { r.nodetool("import", "load", "t", stage) })
		must(b, os.RemoveAll(filepath.Dir(filepath.Dir(stage))))
		r.do("TRUNCATE load.t")
		run.Epoch++
		run.Operation = plugins.OpRestore
		m.time("restore", "", func() {
			if _, err := s.Restore(b.Context(), run, u); err != nil {
				b.Fatal(err)
			}
		})
		m.time("comparison after it", "", func() {
			if d, err := s.Compare(b.Context(), run, u); err != nil || len(d) > 0 {
				b.Fatalf("%+v, %v", d, err)
			}
		})
	}
	for _, n := range m.order {
		b.Logf("%-40s %8.2f s  %7.1f MB/s  %s", n, m.best[n].Seconds(), float64(mb)/m.best[n].Seconds(), m.note[n])
	}
	b.Logf("backup runs at %.2f times the speed of cp; heap at most %d MiB, resident %s", m.best["cp"].Seconds()/m.best["backup, pin and copy into the store"].Seconds(), peak()>>20, resident())
}

// load writes rows of 64 KiB, half of it noise, and puts them into files.
func (r *rig) load(mb int) {
	r.do(`CREATE KEYSPACE load WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
		`CREATE TABLE load.t (id int PRIMARY KEY, v blob) WITH`+still)
	c := r.client(r.t, r.on, 0)
	defer c.Close()
	var wg sync.WaitGroup
	var next atomic.Int64
	rows := int64(mb) << 20 / (34 << 10) // what remains of a row after LZ4
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			v := make([]byte, 64<<10)
			for n := next.Add(1); n <= rows; n = next.Add(1) {
				_, _ = rand.Read(v[:32<<10])
				for {
					if err := c.Query("INSERT INTO load.t (id, v) VALUES (?, ?)", n, v).Exec(); err == nil {
						break
					} else if !strings.Contains(err.Error(), "timed out") {
						r.t.Errorf("load: %v", err)
						return
					}
				}
			}
		}()
	}
	wg.Wait()
	r.nodetool("flush", "load")
	r.t.Logf("loaded: %s", strings.Join(strings.Fields(r.nodetool("tablestats", "-F", "json", "load.t")), "")[:80])
}

func watchMemory() func() uint64 {
	var peak atomic.Uint64
	go func() {
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return peak.Load
}

func resident() string {
	b, _ := os.ReadFile("/proc/self/status")
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

// vault is a real store with its keys.
type vault struct {
	b     *testing.B
	dir   string
	n     int
	s     *store.Store
	w     keys.Writer
	r     keys.Reader
	clock time.Time
}

var benchUnit = store.UnitID{Component: "cassandra", Instance: "central", Member: "n1"}

func newVault(b *testing.B, dir string) *vault {
	v := &vault{b: b, dir: dir, clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	_, err := keys.Ensure(filepath.Join(dir, "keys"))
	must(b, err)
	v.w, err = keys.LoadWriter(filepath.Join(dir, "keys"))
	must(b, err)
	v.r, err = keys.LoadReader(filepath.Join(dir, "keys"))
	must(b, err)
	v.renew()
	return v
}

// renew begins with an empty store.
func (v *vault) renew() {
	if v.s != nil {
		v.s.Close()
		must(v.b, os.RemoveAll(filepath.Join(v.dir, fmt.Sprint("root", v.n))))
	}
	v.n++
	var err error
	v.s, err = store.Open(filepath.Join(v.dir, fmt.Sprint("root", v.n)))
	must(v.b, err)
}

// copy is what the product's copy activity does: pin, write all artifacts, make them durable, seal.
func (v *vault) copy(ses plugins.Session, run plugins.Run, name string) store.Ref {
	v.clock = v.clock.Add(time.Hour)
	ref := store.Ref{Name: name, Timestamp: manifest.Timestamp(v.clock)}
	ctx := v.b.Context()
	p, err := ses.(plugins.Pinner).Pin(ctx, run)
	must(v.b, err)
	u, err := v.s.BeginUnit(ctx, ref, benchUnit, v.w, store.UnitOptions{Pin: p.Info().ID, Log: run.Log})
	must(v.b, err)
	defer u.Abort()
	rep, err := p.Backup(ctx, run, u)
	must(v.b, err)
	_, err = u.Finish(ctx, store.UnitMeta{Scope: plugins.ScopeNode, VM: "vm", Pin: p.Info().ID, PinnedAt: p.Info().At, Consistency: rep.Consistency})
	must(v.b, err)
	must(v.b, p.Release(ctx))
	_, err = v.s.Seal(ctx, ref, manifest.Manifest{ID: "run-" + ref.Timestamp, Tool: "bench", Operation: plugins.OpBackup, Trigger: manifest.TriggerCLI,
		Started: v.clock, Pinned: v.clock, Ended: v.clock, Consistency: manifest.NoConsistencyPoint}, store.SealOptions{Writer: v.w, ManifestKey: *v.r.ManifestKey})
	must(v.b, err)
	return ref
}

// open reads a backup back.
func (v *vault) open(ref store.Ref) *store.InstanceReader {
	u, err := v.s.OpenInstance(v.b.Context(), ref, benchUnit, v.r)
	must(v.b, err)
	v.b.Cleanup(func() { u.Close() })
	return u
}
