package elasticsearch_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/store"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// BenchmarkSpeed measures beside the server's own snapshot, restore and _reindex, on one node with the default
// compiler and collector. CSO_BENCH_DOCS says how many documents of about 1 kB (default 1,000,000),
// CSO_BENCH_ROUNDS how often (default 3), CSO_TEST_VERSIONS on which server.
//
//	TMPDIR=/dev/shm go test -run '^$' -bench Speed -benchtime 1x -timeout 1h ./plugins/elasticsearch
func BenchmarkSpeed(b *testing.B) {
	x := &speed{b: b, docs: atoi(os.Getenv("CSO_BENCH_DOCS"), 1_000_000), best: map[string]float64{}}
	s := begin(b, versions()[0]+"+bench", 1)
	x.stand, x.a = s, client(b, s.on)
	x.a.http.Timeout = 0
	x.load()
	ses := open(b, s.on)
	for range atoi(os.Getenv("CSO_BENCH_ROUNDS"), 3) {
		x.backups(ses)
		x.digest(ses)
		x.rebuild(ses)
	}
	x.told()
}

type speed struct {
	b     *testing.B
	a     *api
	stand *stand
	docs  int
	best  map[string]float64
	order []string
	clock time.Time
}

func atoi(s string, otherwise int) int {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// load writes the documents: words, numbers and a text of 700 bytes, in two shards.
func (x *speed) load() {
	a := x.a
	a.clear()
	a.do("PUT", "/bulk", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0,"index.refresh_interval":"-1","index.translog.durability":"async"},
		"mappings":{"dynamic":false,"properties":{"name":{"type":"keyword"},"n":{"type":"long"}}}}`)
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4000)
	for i := range words {
		words[i] = strconv.FormatUint(r.Uint64()>>(20+r.IntN(20)), 36)
	}
	bodies := make(chan string)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for body := range bodies {
				a.do("POST", "/bulk/_bulk?filter_path=errors", body)
			}
		})
	}
	for i := 0; i < x.docs; {
		var b strings.Builder
		for ; b.Len() < 4<<20 && i < x.docs; i++ {
			fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"name":"doc %d","n":%d,"text":"`, i, i%1000, r.Uint64()>>40)
			for end := b.Len() + 900; b.Len() < end; {
				b.WriteString(words[r.IntN(len(words))])
				b.WriteByte(' ')
			}
			b.WriteString("\"}\n")
		}
		bodies <- b.String()
	}
	close(bodies)
	wg.Wait()
	a.do("POST", "/bulk/_flush", nil)
	a.do("POST", "/bulk/_forcemerge?max_num_segments=4", nil)
	a.do("POST", "/bulk/_refresh", nil)
	var st struct {
		All struct {
			Primaries struct {
				Store struct {
					Bytes int64 `json:"size_in_bytes"`
				} `json:"store"`
			} `json:"primaries"`
		} `json:"_all"`
	}
	a.get("/bulk/_stats/store", &st)
	fmt.Printf("%s: %d documents, %d MiB on disk\n", x.stand.version, x.docs, st.All.Primaries.Store.Bytes>>20)
}

// time measures one run of something.
func (x *speed) time(what string, do func()) {
	x.b.Helper()
	begin, client, server := time.Now(), ownCPU(), x.serverCPU()
	do()
	wall := time.Since(begin).Seconds()
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%-44s %7.2f s  CPU: client %6.2f s, server %6.2f s  load %.4s  rss %d MiB\n", what, wall, ownCPU()-client, x.serverCPU()-server, load, ownRSS())
	best, ok := x.best[what]
	if !ok {
		x.order = append(x.order, what)
	}
	if !ok || wall < best {
		x.best[what] = wall
	}
}

func (x *speed) told() {
	for _, what := range x.order {
		fmt.Printf("best: %-44s %7.2f s\n", what, x.best[what])
	}
	fmt.Printf("backup: %.2f times the default snapshot's speed, %.2f times the unthrottled one's time\n",
		x.best["snapshot, default"]/x.best["backup"], x.best["backup"]/x.best["snapshot, unthrottled"])
	fmt.Printf("restore: %.2f times the default restore's speed; digest %.0f documents/s; reindex %.2f times the plain one's time\n",
		x.best["native restore, default"]/x.best["restore"], float64(x.docs)/x.best["digest"], x.best["reindex"]/x.best["plain _reindex"])
}

func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func ownRSS() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize()) >> 20
}

func (x *speed) serverCPU() float64 {
	pid, err := x.stand.lab.Pid(x.stand.on.Members[0].Name)
	must(x.b, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(x.b, err)
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	u, _ := strconv.Atoi(f[11])
	k, _ := strconv.Atoi(f[12])
	return float64(u+k) / 100
}

// backups measures backup and restore beside snapshot and native restore.
func (x *speed) backups(ses plugins.Session) {
	b, a := x.b, x.a
	repo := filepath.Join(x.stand.on.Members[0].Options["repo_dir"], "peer")
	for _, p := range []struct{ name, rate string }{{"snapshot, default", "40mb"}, {"snapshot, unthrottled", "0"}} {
		must(b, os.RemoveAll(repo))
		a.do("PUT", "/_snapshot/peer", map[string]any{"type": "fs", "settings": map[string]any{"location": repo, "max_snapshot_bytes_per_sec": p.rate}})
		x.time(p.name, func() { a.do("PUT", "/_snapshot/peer/s?wait_for_completion=true", `{"indices":"bulk"}`) })
		if p.rate != "0" {
			a.do("DELETE", "/_snapshot/peer", nil)
		}
	}
	v := x.vault()
	var ref store.Ref
	var sum store.UnitSummary
	x.time("backup", func() { ref, sum = x.copy(v, ses) })
	fmt.Printf("  %d records, %d MiB, stored %d MiB\n", sum.Records, sum.Bytes>>20, sum.Stored>>20)
	x.time("second backup", func() { ref, sum = x.copy(v, ses) })
	fmt.Printf("  stored anew %.4f %%\n", 100*float64(sum.StoredNew)/float64(max(sum.Stored, 1)))
	r := v.seal(x, ref)
	a.do("DELETE", "/bulk", nil)
	x.time("native restore, default", func() { a.do("POST", "/_snapshot/peer/s/_restore?wait_for_completion=true", nil) })
	a.do("DELETE", "/_snapshot/peer", nil)
	must(b, os.RemoveAll(repo))
	a.do("DELETE", "/bulk", nil)
	x.time("restore", func() {
		_, err := ses.Restore(b.Context(), run(b, plugins.OpRestore), r)
		must(b, err)
	})
	x.time("compare", func() {
		d, err := ses.Compare(b.Context(), run(b, plugins.OpRestore), r)
		if err != nil || len(d) > 0 {
			b.Fatalf("after the restore: %v, %+v", err, d)
		}
	})
	must(b, v.s.Close())
	must(b, os.RemoveAll(v.s.Path()))
}

func (x *speed) digest(ses plugins.Session) {
	r := run(x.b, plugins.OpInspect)
	r.Parallel = 2
	x.time("digest", func() { _, err := ses.Digest(x.b.Context(), r); must(x.b, err) })
}

// rebuild measures reindex beside the plain _reindex into an index made for it in the same way.
func (x *speed) rebuild(ses plugins.Session) {
	a := x.a
	a.do("PUT", "/peer", `{"settings":{"index.number_of_shards":2,"index.number_of_replicas":0,"index.refresh_interval":"-1","index.translog.durability":"async"},
		"mappings":{"dynamic":false,"properties":{"name":{"type":"keyword"},"n":{"type":"long"}}}}`)
	x.time("plain _reindex", func() {
		a.do("POST", "/_reindex?wait_for_completion=true&slices=auto", `{"source":{"index":"bulk"},"dest":{"index":"peer"}}`)
	})
	a.do("DELETE", "/peer", nil)
	r := run(x.b, plugins.OpReindex)
	r.Options = map[string]string{"index": "bulk"}
	x.time("reindex", func() { _, err := ses.(plugins.Reindexer).Reindex(x.b.Context(), r); must(x.b, err) })
	a.do("POST", "/bulk/_forcemerge?max_num_segments=4", nil)
}

// vault is a real store with its keys.
type vault struct {
	s *store.Store
	w keys.Writer
	r keys.Reader
}

var benchUnit = store.UnitID{Component: "elasticsearch", Instance: "central", Member: "cluster"}

func (x *speed) vault() *vault {
	dir, v := x.b.TempDir(), &vault{}
	_, err := keys.Ensure(filepath.Join(dir, "keys"))
	must(x.b, err)
	v.w, err = keys.LoadWriter(filepath.Join(dir, "keys"))
	must(x.b, err)
	v.r, err = keys.LoadReader(filepath.Join(dir, "keys"))
	must(x.b, err)
	v.s, err = store.Open(filepath.Join(dir, "root"))
	must(x.b, err)
	return v
}

// copy is what the product's copy activity does: pin, write all artifacts, make them durable.
func (x *speed) copy(v *vault, ses plugins.Session) (store.Ref, store.UnitSummary) {
	b := x.b
	if x.clock.IsZero() {
		x.clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	x.clock = x.clock.Add(time.Hour)
	r := run(b, plugins.OpBackup)
	r.Parallel = 2
	ref := store.Ref{Name: "BENCH", Timestamp: manifest.Timestamp(x.clock)}
	p, err := ses.(plugins.Pinner).Pin(b.Context(), r)
	must(b, err)
	u, err := v.s.BeginUnit(b.Context(), ref, benchUnit, v.w, store.UnitOptions{Pin: p.Info().ID, Log: r.Log})
	must(b, err)
	defer u.Abort()
	rep, err := p.Backup(b.Context(), r, u)
	must(b, err)
	must(b, p.Release(b.Context()))
	sum, err := u.Finish(b.Context(), store.UnitMeta{Scope: plugins.ScopeCluster, VM: "vm", Pin: p.Info().ID, PinnedAt: p.Info().At, Consistency: rep.Consistency})
	must(b, err)
	_, err = v.s.Seal(b.Context(), ref, manifest.Manifest{ID: "run-" + ref.Timestamp, Tool: "bench", Operation: plugins.OpBackup, Trigger: manifest.TriggerCLI,
		Started: x.clock, Pinned: x.clock, Ended: x.clock, Consistency: manifest.NoConsistencyPoint}, store.SealOptions{Writer: v.w, ManifestKey: *v.r.ManifestKey})
	must(b, err)
	return ref, sum
}

func (v *vault) seal(x *speed, ref store.Ref) plugins.ArtifactReader {
	u, err := v.s.OpenUnit(x.b.Context(), ref, benchUnit, v.r)
	must(x.b, err)
	x.b.Cleanup(func() { u.Close() })
	return u
}
