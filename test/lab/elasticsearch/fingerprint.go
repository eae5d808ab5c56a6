package elasticsearch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Fingerprint lists every index with its state, mapping, settings and aliases;
// every document with its id, routing, version, sequence number, primary term
// and the bytes of its source; data streams, templates of all three kinds,
// pipelines, scripts, cluster settings; and what searches find that the source does not show.
//
// A closed index is opened for it and closed again. Not compared: identifiers
// and dates of creation, which no API sets; what the server writes into
// settings when it closes, clones or restores an index; indices of server and
// product. Every node must give the same, or there is no fingerprint.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) (err error) {
	r, err := find(e.version)
	if err != nil {
		return err
	}
	if err := AwaitCluster(ctx, members); err != nil {
		return err
	}
	first, err := dial(members[0])
	if err != nil {
		return err
	}
	defer first.close()
	h, err := list(ctx, first, r)
	if err != nil {
		return err
	}
	lines, err := definitions(ctx, first, r, h)
	if err != nil {
		return err
	}
	defer func() { // whatever happens, the closed ones must be closed in the end
		for _, index := range h.closed {
			_, closeErr := first.do(context.WithoutCancel(ctx), http.MethodPost, "/"+url.PathEscape(index)+"/_close", nil)
			err = errors.Join(err, closeErr)
		}
	}()
	for _, index := range h.closed {
		if _, err := first.do(ctx, http.MethodPost, "/"+url.PathEscape(index)+"/_open?wait_for_active_shards=all&timeout=60s", nil); err != nil {
			return err
		}
	}
	var content []string
	// A write whose answer was not awaited may reach one copy after the other: only copies that stay different have diverged.
	for end := time.Now().Add(agreeWithin); ; time.Sleep(time.Second) {
		var different string
		if content, different, err = agreed(ctx, members, slices.Concat(h.open, h.closed, h.backing)); err != nil {
			return err
		}
		if different == "" {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s shows other documents than %s: the copies have diverged, or somebody writes", different, members[0].Name)
		}
	}
	lines = append(lines, content...)
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return nil
}

// agreeWithin is how long copies may differ while nobody writes any more.
const agreeWithin = 20 * time.Second

// agreed are the contents of all members; different names one that shows others.
func agreed(ctx context.Context, members []engine.Member, indices []string) (content []string, different string, err error) {
	for i, m := range members {
		own, err := contents(ctx, m, indices)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", m.Name, err)
		}
		if i > 0 && !slices.Equal(own, content) {
			for _, l := range own {
				if !slices.Contains(content, l) {
					return nil, fmt.Sprintf("%s shows %.300s, and so", m.Name, l), nil
				}
			}
			return nil, m.Name, nil
		}
		content = own
	}
	return content, "", nil
}

func line(kind, object string, value any) string {
	text, err := json.Marshal(value) // with sorted keys
	if err != nil {
		panic(err) // what was decoded can be encoded
	}
	return kind + "\t" + strconv.QuoteToASCII(object) + "\t" + strconv.QuoteToASCII(string(text))
}

// canonical is a JSON text with sorted keys: each Java process has an order of its own.
func canonical(text json.RawMessage) (string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	out, err := json.Marshal(v)
	return string(out), err
}

// exactly is get that keeps numbers as they are.
func exactly(ctx context.Context, c *client, path string) (map[string]any, error) {
	var answer json.RawMessage
	if err := c.get(ctx, path, &answer); err != nil || answer == nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber()
	v := map[string]any{}
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode the answer to %s: %w", path, err)
	}
	return v, nil
}

// incidental are an index's settings that the server writes by itself.
func incidental(setting string) bool {
	return slices.Contains([]string{"index.uuid", "index.history.uuid", "index.creation_date", "index.verified_before_close", "index.version.upgraded",
		"index.routing.allocation.initial_recovery._id"}, setting) || strings.HasPrefix(setting, "index.resize.")
}

// definitions are the lines of everything but documents.
func definitions(ctx context.Context, c *client, r release, h holds) ([]string, error) {
	var lines []string
	indices, err := exactly(ctx, c, "/_all?expand_wildcards=all&flat_settings=true")
	if err != nil {
		return nil, err
	}
	for name, d := range indices {
		if own(name) {
			continue
		}
		parts := d.(map[string]any)
		if settings, ok := parts["settings"].(map[string]any); ok {
			for k := range settings {
				if incidental(k) {
					delete(settings, k)
				}
			}
		}
		for part, v := range parts {
			lines = append(lines, line(part, name, v))
		}
		state := "open"
		if slices.Contains(h.closed, name) {
			state = "closed"
		}
		lines = append(lines, line("index", name, state))
	}
	kinds := map[string]string{"template": "/_template?flat_settings=true", "component_templates": "/_component_template?flat_settings=true",
		"index_templates": "/_index_template?flat_settings=true", "pipeline": "/_ingest/pipeline", "setting": "/_cluster/settings?flat_settings=true",
		"script": "/_cluster/state/metadata?filter_path=metadata.stored_scripts"}
	if r.opensearch {
		kinds["data_streams"] = "/_data_stream"
	}
	for kind, path := range kinds {
		v, err := exactly(ctx, c, path)
		if err != nil {
			return nil, err
		}
		if named, ok := v[kind].([]any); ok { // a list of things with a name
			for _, n := range named {
				thing := n.(map[string]any)
				delete(thing, "status") // its health
				for _, i := range anys(thing["indices"]) {
					delete(i.(map[string]any), "index_uuid")
				}
				lines = append(lines, line(strings.TrimSuffix(kind, "s"), fmt.Sprint(thing["name"]), thing))
			}
			continue
		}
		for name, thing := range v {
			lines = append(lines, line(kind, name, thing))
		}
	}
	return lines, nil
}

func anys(v any) []any {
	l, _ := v.([]any)
	return l
}

// contents are the lines of all documents as one node shows them, from copies of its own where it has them.
func contents(ctx context.Context, m engine.Member, indices []string) ([]string, error) {
	c, err := dial(m)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if _, err := c.do(ctx, http.MethodPost, "/_all/_refresh?expand_wildcards=open,hidden", nil); err != nil {
		return nil, err
	}
	var lines []string
	for _, index := range indices {
		own, err := documents(ctx, c, index)
		if err != nil {
			return nil, err
		}
		lines = append(lines, own...)
	}
	for name, p := range probes {
		if !slices.Contains(indices, p.index) {
			continue
		}
		answer, err := c.do(ctx, http.MethodPost, "/"+p.path+"/_search?size=500&preference=_local&filter_path=hits.hits._id,hits.hits.fields,hits.hits._routing,timed_out,_shards.failed", p.query)
		var status *statusError
		if errors.As(err, &status) && status.code == http.StatusNotFound {
			continue // an alias that is gone; its definition tells
		}
		if err != nil {
			return nil, err
		}
		var found struct {
			Hits struct{ Hits []json.RawMessage }
		}
		if err := json.Unmarshal(answer, &found); err != nil {
			return nil, fmt.Errorf("decode what %s finds: %w", name, err)
		}
		hits := make([]string, len(found.Hits.Hits))
		for i, h := range found.Hits.Hits {
			if hits[i], err = canonical(h); err != nil {
				return nil, fmt.Errorf("decode what %s finds: %w", name, err)
			}
		}
		slices.Sort(hits)
		lines = append(lines, line("found", name, hits))
	}
	slices.Sort(lines)
	return lines, nil
}

// probes are searches whose results the source of a document does not show.
var probes = map[string]struct{ index, path, query string }{
	"no source":       {"cso-nosource", "cso-nosource", `{"docvalue_fields":["n","secret"]}`},
	"excluded":        {"cso-excludes", "cso-excludes", `{"docvalue_fields":["n","secret"]}`},
	"included":        {"cso-includes", "cso-includes", `{"docvalue_fields":["n","secret","kept"]}`},
	"by analyzer":     {"cso-types", "cso-types", `{"query":{"match":{"text":"QUICK"}}}`},
	"by number":       {"cso-types", "cso-types", `{"query":{"range":{"long":{"gte":2}}},"stored_fields":["stored"]}`},
	"by range":        {"cso-types", "cso-types", `{"query":{"term":{"range":77}}}`},
	"nested":          {"cso-types", "cso-types", `{"query":{"nested":{"path":"nested","query":{"term":{"nested.k":"b"}}}}}`},
	"filtered alias":  {"cso-devices", "devices-west", `{"query":{"range":{"n":{"gte":20}}}}`},
	"routed alias":    {"cso-devices", "devices-routed", `{}`},
	"template's type": {"cso-events-1", "cso-events-1", `{"query":{"bool":{"filter":[{"term":{"site":"s7"}},{"match":{"body":"alarm"}},{"range":{"n":{"lt":300}}}]}}}`},
}

// documents reads a whole index: one line for each document. Pages are small,
// because index.max_result_window may be.
func documents(ctx context.Context, c *client, index string) ([]string, error) {
	var page struct {
		ID     string `json:"_scroll_id"`
		Shards struct {
			Failed int
		} `json:"_shards"`
		Hits struct {
			Total struct{ Value int }
			Hits  []struct {
				ID      string          `json:"_id"`
				Routing string          `json:"_routing"`
				Version int64           `json:"_version"`
				SeqNo   int64           `json:"_seq_no"`
				Term    int64           `json:"_primary_term"`
				Source  json.RawMessage `json:"_source"` // its very bytes
			}
		}
	}
	answer, err := c.do(ctx, http.MethodPost, "/"+url.PathEscape(index)+"/_search?scroll=2m&preference=_local",
		`{"size":500,"sort":["_doc"],"version":true,"seq_no_primary_term":true,"track_total_hits":true}`)
	var lines []string
	for {
		if err != nil {
			return nil, err
		}
		page.Hits.Hits = nil
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, fmt.Errorf("decode a page of %s: %w", index, err)
		}
		if page.Shards.Failed > 0 {
			return nil, fmt.Errorf("read %s: %d of its shards failed", index, page.Shards.Failed)
		}
		if len(page.Hits.Hits) == 0 {
			break
		}
		for _, h := range page.Hits.Hits {
			sum := sha256.Sum256(h.Source)
			lines = append(lines, fmt.Sprintf("document\t%s %s %s\t%d %d %d %s", strconv.QuoteToASCII(index), strconv.QuoteToASCII(h.ID), strconv.QuoteToASCII(h.Routing),
				h.Version, h.SeqNo, h.Term, hex.EncodeToString(sum[:16])))
		}
		answer, err = c.do(ctx, http.MethodPost, "/_search/scroll", map[string]string{"scroll": "2m", "scroll_id": page.ID})
	}
	if len(lines) != page.Hits.Total.Value {
		return nil, fmt.Errorf("read %s: %d documents of %d", index, len(lines), page.Hits.Total.Value)
	}
	_, err = c.do(ctx, http.MethodDelete, "/_search/scroll", map[string]any{"scroll_id": []string{page.ID}})
	return lines, err
}
