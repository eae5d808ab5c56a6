package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// elasticsearchChapter is one node of 7.10.2 with the default compiler and collector.
func elasticsearchChapter(ctx context.Context, b *bench) error {
	return b.elasticsearch(ctx, 1, "One node; an index in 2 shards")
}

// elasticsearchRingChapter is three nodes on the same machine; each document lies on two of them.
func elasticsearchRingChapter(ctx context.Context, b *bench) error {
	return b.elasticsearch(ctx, 3, "Three nodes on one machine; an index in 3 shards with a replica each")
}

func (b *bench) elasticsearch(ctx context.Context, members int, what string) error {
	e, err := b.startRing(ctx, fmt.Sprintf("elasticsearch-%d", members), members, map[string]string{"elasticsearch": "+bench"}, "elasticsearch", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	docs := 1_200_000 // of 0.9 KB
	if b.small {
		docs = 20_000
	}
	url := e.value("LAB_ELASTICSEARCH_1_URL")
	shards := map[int]int{1: 2, 3: 3}[members]
	index := fmt.Sprintf(benchIndex, shards, map[int]int{1: 0, 3: 1}[members])
	if err := elasticsearchFill(ctx, url, index, docs); err != nil {
		return err
	}
	var names []string
	for n := range members {
		names = append(names, fmt.Sprintf("elasticsearch-%d", n+1))
	}
	watched, err := e.pids(names...)
	if err != nil {
		return err
	}
	_, options, err := e.Target("elasticsearch-1")
	if err != nil {
		return err
	}
	env := []string{"URL=" + url, "REPO=" + options["repo_dir"], "INDEX=" + index}
	disk, err := b.sh(ctx, env, `curl -sf "$URL/_cat/indices/bench?h=store.size"`)
	if err != nil {
		return err
	}
	title := map[int]string{1: "Elasticsearch 7.10, one node", 3: "Elasticsearch 7.10, three nodes"}[members]
	b.page.say("## %s\n\n%s\n%s: %d documents of 0.9 KB, %s on disk.\n\n### Backup\n", title, b.stamp(), what, docs, disk)
	var last workflows.Result
	sampled := e.backup(ctx, "B", &last)
	sampled.name += ", `digest: sample`"
	forget, measured := sampled.prepare, sampled.run
	sampled.prepare = func() error { return errors.Join(forget(), e.sampled(true)) }
	sampled.run = func() (string, error) {
		told, err := measured()
		return told, errors.Join(err, e.sampled(false))
	}
	var alone time.Duration
	all := []contender{e.backup(ctx, "B", &last).noting(&alone, &last),
		b.snapshot(ctx, env, "snapshot, throttled as by default", `{}`),
		b.snapshot(ctx, env, "snapshot, not throttled", `{"max_snapshot_bytes_per_sec":"0"}`)}
	all = append(all, sampled)
	if dump, err := exec.LookPath("elasticdump"); err == nil {
		env := append(env, "DUMP="+dump)
		all = append(all, contender{name: "`elasticdump`, documents only", run: func() (string, error) {
			return b.sh(ctx, env, `rm -f $OUT/dump.json; $DUMP --input=$URL/bench --output=$OUT/dump.json --type=data --limit=10000 --quiet >/dev/null; sync $OUT/dump.json
				wc -l <$OUT/dump.json | sed 's/$/ documents, without versions/'`)
		}})
	} else {
		b.page.say("elasticdump is not in PATH (`npm install -g elasticdump`): not measured.\n")
	}
	written, memory := b.floor(ctx, env, `find $REPO/peer -type f`)
	shown := b.scrolled(ctx, env, shards, docs)
	all = append(all, written, memory, shown)
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.report(f, all...)
	b.page.say("\nA snapshot is a copy inside the repository, neither hashed nor encrypted.\n")
	mine, throttled, bare := f[all[0].name].wall, f[all[1].name], f[all[2].name]
	limit := func(asked time.Duration) string {
		return "the server's own snapshot is only the first part: its files are then hashed, encrypted and written, and every document is read for the digest. " +
			atLeast(asked, bare, f[written.name], f[shown.name])
	}
	b.goals(goal{"the backup beside the throttled snapshot", 3, times(throttled, mine), times(throttled, alone), limit(throttled.wall / 3)},
		goal{"the backup beside the snapshot that is not throttled", 0.67, times(bare, mine), times(bare, alone), limit(bare.wall * 3 / 2)})
	if err := e.cso(ctx, nil, "-b", "backup", "-s", "B"); err != nil { // the last one above may be a sampled one
		return err
	}
	if err := e.elasticsearchBack(ctx, env, watched, docs, f[shown.name]); err != nil {
		return err
	}
	if err := e.elasticsearchReindex(ctx, env, watched, docs); err != nil {
		return err
	}
	return e.memory()
}

// snapshot is the server's own, into a repository of its own; the snapshot before it is not there any more.
func (b *bench) snapshot(ctx context.Context, env []string, name, throttle string) contender {
	env = append(env, "THROTTLE="+throttle)
	return contender{name: name, prepare: func() error {
		_, err := b.sh(ctx, env, `curl -s -XDELETE "$URL/_snapshot/peer" >/dev/null; rm -rf $REPO/peer
			curl -sf -XPUT -H 'Content-Type: application/json' "$URL/_snapshot/peer" -d "$(python3 -c 'import json,os; s=json.loads(os.environ["THROTTLE"]); s.update(location=os.environ["REPO"]+"/peer"); print(json.dumps({"type":"fs","settings":s}))')"`)
		return err
	}, run: func() (string, error) {
		return b.sh(ctx, env, `curl -sf -XPUT "$URL/_snapshot/peer/s?wait_for_completion=true" | grep -q '"state":"SUCCESS"'; sync -f $REPO/peer; du -sh $REPO/peer | cut -f1`)
	}}
}

// elasticsearchBack: the second backup, and restores beside the server's own, of the snapshot that was taken last. shown is
// what it takes to be shown every document.
func (e *estate) elasticsearchBack(ctx context.Context, env []string, watched []int, docs int, shown figure) error {
	b := e.b
	var res workflows.Result
	rate := func() string {
		u := res.Units[0]
		return fmt.Sprintf("unit alone %s, %.0f documents/s", u.Took.Round(10*time.Millisecond), float64(docs)/u.Took.Seconds())
	}
	second := func() (string, error) {
		err := e.cso(ctx, &res, "-b", "backup", "-s", "B")
		return fmt.Sprintf("%s read, %s new; %s", size(res.Bytes), size(res.New), rate()), err
	}
	var alone time.Duration
	restore := func() (string, error) {
		err := e.cso(ctx, &res, "-b", "restore", "-s", "B", "-t", "elasticsearch")
		alone = res.Units[0].Took
		return fmt.Sprintf("unit alone %s, digest %s", res.Units[0].Took.Round(10*time.Millisecond), res.Units[0].Digest), err
	}
	if err := b.list(ctx, "Nothing has changed", watched, contender{name: "second backup", run: second}, contender{name: "restore", run: restore}); err != nil {
		return err
	}
	gone := func() error { _, err := b.sh(ctx, env, `curl -sf -XDELETE "$URL/bench"`); return err }
	native := func(name, throttle string) contender {
		env := append(env, "THROTTLE="+throttle)
		return contender{name: name, prepare: func() error {
			_, err := b.sh(ctx, env, `curl -sf -XPUT -H 'Content-Type: application/json' "$URL/_cluster/settings" -d "{\"transient\":{\"indices.recovery.max_bytes_per_sec\":$THROTTLE}}"
				curl -sf -XDELETE "$URL/bench"`)
			return err
		}, run: func() (string, error) {
			return b.sh(ctx, env, `curl -sf -XPOST "$URL/_snapshot/peer/s/_restore?wait_for_completion=true" | grep -q '"failed":0'
				curl -sf -XPUT -H 'Content-Type: application/json' "$URL/_cluster/settings" -d '{"transient":{"indices.recovery.max_bytes_per_sec":null}}' >/dev/null
				curl -sf "$URL/bench/_count?filter_path=count"`)
		}}
	}
	all := []contender{
		{name: "cso_backupnrestore -b restore, the index is gone", prepare: gone, run: restore},
		native("`_restore`, throttled as by default", "null"),
		native("`_restore`, not throttled", `"-1"`),
	}
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.page.say("\n### Restore\n")
	b.report(f, all...)
	b.goals(goal{"the restore beside the throttled `_restore`", 5, times(f[all[1].name], f[all[0].name].wall), times(f[all[1].name], alone),
		"what is overwritten is saved first, and every document is read for the proof. " + atLeast(f[all[1].name].wall/5, f[all[2].name], shown)})
	return nil
}

// sampled sets the member option digest in the estate file to sample, or removes it.
func (e *estate) sampled(on bool) error {
	const option = "digest: sample\n"
	path := filepath.Join(e.Dir(), "estate.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var out strings.Builder
	for l := range strings.Lines(string(b)) {
		if strings.HasSuffix(l, option) {
			continue
		}
		if key := strings.TrimLeft(l, " "); on && strings.HasPrefix(key, "repo_dir:") {
			out.WriteString(l[:len(l)-len(key)] + option)
		}
		out.WriteString(l)
	}
	if out.String() == string(b) {
		return errors.New("the estate file does not name a repo_dir as it should")
	}
	return os.WriteFile(path, []byte(out.String()), 0o600)
}

// elasticsearchReindex: every index rebuilt and proven, beside the server's _reindex alone.
func (e *estate) elasticsearchReindex(ctx context.Context, env []string, watched []int, docs int) error {
	b := e.b
	all := []contender{
		{name: "cso_backupnrestore -b reindex: counted, hashed, swapped", run: func() (string, error) {
			begin := time.Now()
			err := e.cso(ctx, nil, "-b", "reindex", "--index", "bench")
			return fmt.Sprintf("%.0f documents/s", float64(docs)/time.Since(begin).Seconds()), err
		}},
		{name: "`_reindex?slices=auto` alone", prepare: func() error {
			_, err := b.sh(ctx, env, `curl -s -XDELETE "$URL/bench-copy" >/dev/null
				curl -sf -XPUT -H 'Content-Type: application/json' "$URL/bench-copy" -d "$INDEX"`)
			return err
		}, run: func() (string, error) {
			return b.sh(ctx, env, `curl -sf -XPOST -H 'Content-Type: application/json' "$URL/_reindex?slices=auto&wait_for_completion=true&filter_path=created,failures" -d '{"source":{"index":"bench"},"dest":{"index":"bench-copy"}}'
				curl -s -XDELETE "$URL/bench-copy" >/dev/null`)
		}},
	}
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.page.say("\n### Reindex\n")
	b.report(f, all...)
	return nil
}

// benchIndex takes the numbers of shards and replicas.
const benchIndex = `{"settings":{"index.number_of_shards":%d,"index.number_of_replicas":%d,"index.refresh_interval":"-1","index.translog.durability":"async"},"mappings":{"dynamic":false,"properties":{"name":{"type":"keyword"},"n":{"type":"long"}}}}`

// elasticsearchFill writes documents of 0.9 KB of words, as two clients that send 4 MB at a time.
func elasticsearchFill(ctx context.Context, url, index string, docs int) error {
	send := func(method, path, contentType string, body []byte) error {
		var answer bytes.Buffer
		err := request(ctx, method, url+path, contentType, body, &answer)
		if err == nil && bytes.Contains(answer.Bytes(), []byte(`"errors":true`)) {
			err = fmt.Errorf("%s %s: %.500s", method, path, answer.Bytes())
		}
		return err
	}
	if err := send(http.MethodPut, "/bench", "application/json", []byte(index)); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4000)
	for i := range words {
		words[i] = strconv.FormatUint(r.Uint64()>>(20+r.IntN(20)), 36)
	}
	var g errgroup.Group
	g.SetLimit(2)
	for i := 0; i < docs; {
		var b bytes.Buffer
		for ; b.Len() < 4<<20 && i < docs; i++ {
			fmt.Fprintf(&b, `{"index":{"_id":"%d"}}`+"\n"+`{"name":"document %d","n":%d,"text":"`, i, i%1000, r.Uint64()>>40)
			for end := b.Len() + 850; b.Len() < end; {
				b.WriteString(words[r.IntN(len(words))])
				b.WriteByte(' ')
			}
			b.WriteString("\"}\n")
		}
		g.Go(func() error {
			return send(http.MethodPost, "/bench/_bulk?filter_path=errors", "application/x-ndjson", b.Bytes())
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// Merges go on for minutes; the files must not change from one run to the next.
	return send(http.MethodPost, "/bench/_forcemerge?max_num_segments=4", "application/json", nil)
}

// plain is a client that does not ask for compressed answers: between programs on one machine these cost more than they save.
var plain = &http.Client{Transport: &http.Transport{DisableCompression: true, ReadBufferSize: 64 << 10, MaxIdleConnsPerHost: 16}}

// request sends to a server and holds it to success; the answer takes the place of what its buffer held.
func request(ctx context.Context, method, url, contentType string, body []byte, answer *bytes.Buffer) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := plain.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	defer res.Body.Close()
	answer.Reset()
	if _, err = answer.ReadFrom(res.Body); err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: HTTP %d: %.500s", method, url, res.StatusCode, answer.Bytes())
	}
	return err
}
