package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// scrolled is the least that a proof document by document costs: a program that does nothing else has every document of
// the bench index shown to it, each shard in two streams from the node that holds it, and takes SHA-256 of the answers as they are.
func (b *bench) scrolled(ctx context.Context, env []string, shards, docs int) contender {
	return contender{name: "every document scrolled and hashed: nothing else", run: func() (string, error) {
		return b.self(ctx, env, fmt.Sprintf(`"$SELF" -scroll "$URL" -shards %d -docs %d`, shards, docs))
	}}
}

// scrollAll does the work of scrolled in this process.
func scrollAll(ctx context.Context, url string, shards, docs int) error {
	homes, err := primaries(ctx, url)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	half := docs / shards / 2 // documents came in turn: each shard numbers its own from nought
	streams := make([]int, 2*shards)
	for i := range streams {
		limit := map[bool]string{true: "lt", false: "gte"}[i%2 == 0]
		g.Go(func() (err error) {
			streams[i], err = scrollShard(ctx, homes[i/2], i/2, fmt.Sprintf(`{"range":{"_seq_no":{"%s":%d}}}`, limit, half))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	n := 0
	for _, s := range streams {
		n += s
	}
	if n != docs {
		return fmt.Errorf("%d documents came, of %d", n, docs)
	}
	fmt.Println(n, "documents")
	return nil
}

// primaries are the URLs of the nodes that hold the shards of the bench index, by shard.
func primaries(ctx context.Context, url string) (map[int]string, error) {
	var page bytes.Buffer
	if err := request(ctx, http.MethodGet, url+"/_nodes/http?filter_path=nodes.*.http.publish_address", "application/json", nil, &page); err != nil {
		return nil, err
	}
	var ns struct {
		Nodes map[string]struct {
			HTTP struct {
				Address string `json:"publish_address"`
			} `json:"http"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(page.Bytes(), &ns); err != nil {
		return nil, fmt.Errorf("_nodes: %w", err)
	}
	if err := request(ctx, http.MethodGet, url+"/_cat/shards/bench?h=shard,prirep,id&format=json", "application/json", nil, &page); err != nil {
		return nil, err
	}
	var copies []struct {
		Shard  int    `json:"shard,string"`
		Prirep string `json:"prirep"`
		Node   string `json:"id"`
	}
	if err := json.Unmarshal(page.Bytes(), &copies); err != nil {
		return nil, fmt.Errorf("_cat/shards: %w", err)
	}
	homes := map[int]string{}
	for _, c := range copies {
		if c.Prirep == "p" {
			homes[c.Shard] = "http://" + ns.Nodes[c.Node].HTTP.Address
		}
	}
	return homes, nil
}

func scrollShard(ctx context.Context, url string, shard int, query string) (docs int, err error) {
	path := fmt.Sprintf("/bench/_search?scroll=5m&preference=_shards:%d%%7C_local", shard)
	body := `{"size":4000,"sort":["_doc"],"version":true,"seq_no_primary_term":true,"query":` + query + `}`
	var page bytes.Buffer
	for {
		if err := request(ctx, http.MethodPost, url+path, "application/json", []byte(body), &page); err != nil {
			return docs, err
		}
		sha256.Sum256(page.Bytes())
		n := bytes.Count(page.Bytes(), []byte(`"_seq_no":`))
		_, rest, ok := bytes.Cut(page.Bytes(), []byte(`"_scroll_id":`))
		end := bytes.IndexByte(rest, ',')
		if !ok || end < 0 {
			return docs, errors.New("the answer names no scroll")
		}
		if n == 0 {
			return docs, nil
		}
		docs += n
		path, body = "/_search/scroll", `{"scroll":"5m","scroll_id":`+string(rest[:end])+`}`
	}
}
