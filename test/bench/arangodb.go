package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// arangodbChapter is a cluster of the project's own simulator: what is measured is the product's work, not a real server's
// speed, so that there is no peer.
func arangodbChapter(ctx context.Context, b *bench) error {
	e, err := b.startAs(ctx, "arangodb", map[string]string{"arangodb": "3.12-cluster"}, "arangodb", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	docs := 200_000 // of 1 KB
	if b.small {
		docs = 5_000
	}
	a := arango{e.value("LAB_ARANGODB_1_URL"), e.value("LAB_ARANGODB_1_PASSWORD")}
	if err := a.fill(ctx, docs); err != nil {
		return err
	}
	watched, err := e.pids("arangodb-1")
	if err != nil {
		return err
	}
	b.page.say("## ArangoDB 3.12 (simulated)\n\n%s\nA cluster of the project's own simulator, which says nothing about a real server's speed; no real one has been run against.\n"+
		"%d documents of 1 KB in 3 shards, and as many of ten bytes in 20 collections.\n", b.stamp(), docs)
	all, err := e.arangodbCases(ctx, a, docs)
	if err != nil {
		return err
	}
	return b.list(ctx, "Backup and restore", watched, all...)
}

// arangodbCases are told with what they moved, what they asked the server for, and the worker's peak memory.
func (e *estate) arangodbCases(ctx context.Context, a arango, docs int) ([]contender, error) {
	worker, err := e.Pid("worker")
	if err != nil {
		return nil, err
	}
	backup := []string{"-b", "backup", "-s", "B"}
	restore := []string{"-b", "restore", "-s", "B", "-t", "arangodb"}
	one := func(name string, prepare func() error, op []string) contender {
		var answered func() (int, error)
		return contender{name: name, prepare: func() error {
			if prepare != nil {
				if err := prepare(); err != nil {
					return err
				}
			}
			var err error
			if answered, err = a.count(ctx); err != nil {
				return err
			}
			return forgetPeak(worker)
		}, run: func() (string, error) {
			var res workflows.Result
			if err := e.cso(ctx, &res, op...); err != nil {
				return "", err
			}
			n, err := answered()
			if err != nil {
				return "", err
			}
			mem, err := peak(worker)
			u := res.Units[0]
			told := fmt.Sprintf("alone %s; %s, %d records; %d requests for documents; worker's peak memory %d MiB", u.Took.Round(10*time.Millisecond), size(u.Bytes), u.Records, n, mem)
			if op[1] == "backup" {
				told += fmt.Sprintf("; %s stored", size(res.New))
			}
			return told, err
		}}
	}
	return []contender{
		one("backup", e.forget, backup),
		one("second backup, nothing has changed", nil, backup),
		one("second backup, one small collection has changed", func() error {
			return a.send(ctx, "PATCH", "/_api/document/small07/0", fmt.Sprintf(`{"n":%d}`, time.Now().UnixNano()), nil)
		}, backup),
		one("restore, nothing has changed", nil, restore),
		one("restore, 1 % of the documents changed", func() error { return a.put(ctx, "bench", docs/100, 3, "changed") }, restore),
		one("restore, the collection is gone", func() error { return a.send(ctx, "DELETE", "/_api/collection/bench", "", nil) }, restore),
	}, nil
}

// arango is plain HTTP as root.
type arango struct{ url, password string }

func (a arango) send(ctx context.Context, method, path, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth("root", a.password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode/100 != 2 || bytes.Contains(answer, []byte(`"error":true`))) {
		err = fmt.Errorf("%s %s: HTTP %d: %.500s", method, path, res.StatusCode, answer)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(answer, into)
	}
	return err
}

// count counts requests for documents, by a fault of the simulator that delays them by nothing.
func (a arango) count(ctx context.Context) (hits func() (int, error), err error) {
	return func() (int, error) {
		var now []struct{ Hits int }
		if err := a.send(ctx, "GET", "/_sim/faults", "", &now); err != nil || len(now) == 0 {
			return 0, err
		}
		return now[0].Hits, nil
	}, a.send(ctx, "PUT", "/_sim/faults", `[{"path":"/replication/dump","kind":"delay","count":-1}]`, nil)
}

func (a arango) fill(ctx context.Context, docs int) error {
	if err := a.send(ctx, "POST", "/_api/collection", `{"name":"bench","numberOfShards":3,"replicationFactor":1}`, nil); err != nil {
		return err
	}
	if err := a.put(ctx, "bench", docs, 1, "document"); err != nil {
		return err
	}
	for i := range 20 {
		name := fmt.Sprintf("small%02d", i)
		if err := a.send(ctx, "POST", "/_api/collection", `{"name":"`+name+`"}`, nil); err != nil {
			return err
		}
		var text strings.Builder
		for k := range docs / 20 {
			fmt.Fprintf(&text, `,{"_key":"%d","n":%d}`, k, k)
		}
		if err := a.send(ctx, "POST", "/_api/document/"+name+"?silent=true", "["+text.String()[1:]+"]", nil); err != nil {
			return err
		}
	}
	return nil
}

// put writes every step-th document, in requests of 4 MB.
func (a arango) put(ctx context.Context, collection string, docs, step int, word string) error {
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	var g errgroup.Group
	g.SetLimit(2)
	for i := 0; i < docs; {
		var text bytes.Buffer
		for ; text.Len() < 4<<20 && i < docs; i++ {
			fmt.Fprintf(&text, `,{"_key":"d%08d","name":"%s %d","n":%d,"text":"`, i*step, word, i%1000, r.Uint64())
			for range 60 {
				fmt.Fprintf(&text, "%x ", r.Uint64()>>8)
			}
			text.WriteString(`"}`)
		}
		g.Go(func() error {
			return a.send(ctx, "POST", "/_api/document/"+collection+"?overwriteMode=replace&silent=true", "["+text.String()[1:]+"]", nil)
		})
	}
	return g.Wait()
}
