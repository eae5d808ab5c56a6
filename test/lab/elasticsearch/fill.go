package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Fill replaces all indices, data streams, aliases, templates, pipelines,
// scripts and settings that are not the server's or the product's own.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	f, err := e.filler(ctx, members)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.clear(); err != nil {
		return err
	}
	f.random = rand.New(rand.NewPCG(uint64(seed), 0xe1a5))
	f.objects()
	f.awkward()
	f.devices()
	f.family()
	f.special()
	f.streams()
	f.events(size)
	f.states()
	return f.err
}

// filler sends requests until the first one fails.
type filler struct {
	*client
	ctx      context.Context
	release  release
	replicas int // of what is replicated
	random   *rand.Rand
	err      error
}

func (e *Engine) filler(ctx context.Context, members []engine.Member) (*filler, error) {
	r, err := find(e.version)
	if err != nil {
		return nil, err
	}
	if err := AwaitCluster(ctx, members); err != nil {
		return nil, err
	}
	c, err := dial(members[0])
	if err != nil {
		return nil, err
	}
	return &filler{client: c, ctx: ctx, release: r, replicas: min(len(members)-1, 1)}, nil
}

// send demands success.
func (f *filler) send(method, path string, body any) {
	if f.err != nil {
		return
	}
	_, f.err = f.do(f.ctx, method, path, body)
}

func (f *filler) put(path string, body any) { f.send(http.MethodPut, path, body) }

// offer is put for what needs a module that only releases with all modules
// have; elsewhere the server may refuse it. It says whether the server took it.
func (f *filler) offer(path string, body any) bool {
	if f.err != nil {
		return false
	}
	_, err := f.do(f.ctx, http.MethodPut, path, body)
	var status *statusError
	if !f.release.full && errors.As(err, &status) && (status.code == http.StatusBadRequest || status.code == http.StatusMethodNotAllowed) {
		return false
	}
	f.err = err
	return err == nil
}

// shards are the settings of a new index.
func (f *filler) shards(n int, more string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`"index.number_of_shards":%d,"index.number_of_replicas":%d%s`, n, f.replicas, more)
}

// batch is a bulk request.
type batch struct {
	lines bytes.Buffer
	n     int
}

// meta is what a bulk request says about one document.
type meta struct {
	ID          string `json:"_id,omitempty"`
	Routing     string `json:"routing,omitempty"`
	Version     int64  `json:"version,omitempty"`
	VersionType string `json:"version_type,omitempty"`
}

// add takes a document as one line, byte by byte as it is to be stored.
func (b *batch) add(op string, m meta, source string) {
	head, err := json.Marshal(map[string]meta{op: m})
	if err != nil {
		panic(err) // strings and numbers only
	}
	b.lines.Write(head)
	b.lines.WriteByte('\n')
	if op != "delete" {
		b.lines.WriteString(source)
		b.lines.WriteByte('\n')
	}
	b.n++
}

// bulk sends a batch and demands that every document was taken.
func (f *filler) bulk(index string, b *batch) {
	if f.err != nil || b.n == 0 {
		return
	}
	path := "/" + url.PathEscape(index) + "/_bulk?filter_path=errors,items.*.error"
	answer, err := f.do(f.ctx, http.MethodPost, path, &b.lines)
	if err == nil && !bytes.Contains(answer, []byte(`"errors":false`)) {
		err = fmt.Errorf("documents of %s were refused: %.1000s", index, answer)
	}
	f.err = err
	b.lines.Reset()
	b.n = 0
}

// own says whether an index is the product's bookkeeping or the server's: not filled, wrecked or compared.
func own(index string) bool {
	return strings.HasPrefix(index, ".cso-backup") || slices.Contains([]string{".tasks", ".opendistro_security", ".geoip_databases"}, index)
}

// holds lists what the cluster has, by the server's own listings.
type holds struct {
	open, closed                                       []string // indices that belong to no data stream
	streams, legacy, components, composable, pipelines []string
	scripts                                            []string
	backing                                            []string
	settings                                           map[string]map[string]json.RawMessage // persistent and transient
}

func (f *filler) holds() (h holds, err error) { return list(f.ctx, f.client, f.release) }

func list(ctx context.Context, c *client, r release) (h holds, err error) {
	var streams struct {
		List []struct {
			Name    string `json:"name"`
			Indices []struct {
				Name string `json:"index_name"`
			} `json:"indices"`
		} `json:"data_streams"`
	}
	if r.opensearch {
		if err := c.get(ctx, "/_data_stream", &streams); err != nil {
			return h, err
		}
	}
	for _, s := range streams.List {
		h.streams = append(h.streams, s.Name)
		for _, i := range s.Indices {
			h.backing = append(h.backing, i.Name)
		}
	}
	var indices []struct{ Index, Status string }
	if err := c.get(ctx, "/_cat/indices?format=json&h=index,status&expand_wildcards=all", &indices); err != nil {
		return h, err
	}
	for _, i := range indices {
		switch {
		case own(i.Index) || slices.Contains(h.backing, i.Index):
		case i.Status == "close":
			h.closed = append(h.closed, i.Index)
		default:
			h.open = append(h.open, i.Index)
		}
	}
	var legacy, pipelines map[string]json.RawMessage
	var components struct {
		List []struct{ Name string } `json:"component_templates"`
	}
	var composable struct {
		List []struct{ Name string } `json:"index_templates"`
	}
	var state struct {
		Metadata struct {
			Scripts map[string]json.RawMessage `json:"stored_scripts"`
		} `json:"metadata"`
	}
	err = errors.Join(c.get(ctx, "/_template", &legacy), c.get(ctx, "/_ingest/pipeline", &pipelines), c.get(ctx, "/_component_template", &components),
		c.get(ctx, "/_index_template", &composable), c.get(ctx, "/_cluster/state/metadata?filter_path=metadata.stored_scripts", &state),
		c.get(ctx, "/_cluster/settings?flat_settings=true", &h.settings))
	h.legacy, h.pipelines, h.scripts = keys(legacy), keys(pipelines), keys(state.Metadata.Scripts)
	for _, t := range components.List {
		h.components = append(h.components, t.Name)
	}
	for _, t := range composable.List {
		h.composable = append(h.composable, t.Name)
	}
	for _, l := range [][]string{h.open, h.closed, h.streams, h.components, h.composable, h.backing} {
		slices.Sort(l)
	}
	return h, err
}

func keys(m map[string]json.RawMessage) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// clear leaves nothing that is a user's.
func (f *filler) clear() error {
	h, err := f.holds()
	if err != nil {
		return err
	}
	remove := func(prefix string, names []string) {
		for _, n := range names {
			f.send(http.MethodDelete, prefix+url.PathEscape(n), nil)
		}
	}
	f.resetSettings(h)
	remove("/_data_stream/", h.streams)
	for _, n := range slices.Concat(h.open, h.closed) {
		// A block of the whole index would refuse its deletion; OpenSearch takes a request that lifts one only when nothing else is in it.
		for _, block := range []string{"metadata", "read_only"} {
			f.put("/"+url.PathEscape(n)+"/_settings?expand_wildcards=all", `{"index.blocks.`+block+`":null}`)
		}
	}
	remove("/", slices.Concat(h.open, h.closed))
	remove("/_index_template/", h.composable) // before the components that they are made of
	remove("/_component_template/", h.components)
	remove("/_template/", h.legacy)
	remove("/_ingest/pipeline/", h.pipelines)
	remove("/_scripts/", h.scripts)
	return f.err
}

func (f *filler) resetSettings(h holds) {
	for _, kind := range []string{"transient", "persistent"} {
		for _, k := range keys(h.settings[kind]) {
			f.put("/_cluster/settings", map[string]any{kind: map[string]any{k: nil}}) // a block is only lifted by a request of its own
		}
	}
}
