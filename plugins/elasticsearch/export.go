package elasticsearch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// exportPrefix and the name of an index: its documents, key = id, NUL, routing; value = version, NUL, source, all
// as they stand in the server's answer.
const exportPrefix = "export/"

// strip takes from all definitions what a client cannot set when it creates an index.
func (st *state) strip() error {
	for _, x := range st.Indices {
		var d map[string]map[string]json.RawMessage
		var state string
		raw := map[string]json.RawMessage{}
		if err := json.Unmarshal(x.Definition, &raw); err != nil {
			return err
		}
		d = map[string]map[string]json.RawMessage{}
		for k, v := range raw {
			if k == "state" {
				_ = json.Unmarshal(v, &state)
				continue
			}
			m := map[string]json.RawMessage{}
			if err := json.Unmarshal(v, &m); err != nil {
				return err
			}
			d[k] = m
		}
		delete(d["settings"], "index.creation_date")
		delete(d["settings"], "index.provided_name")
		out := map[string]any{"state": state}
		for k, v := range d {
			out[k] = v
		}
		var err error
		if x.Definition, err = encode(out); err != nil {
			return err
		}
	}
	return nil
}

// lossy says why the documents of an index cannot be read back whole; empty: they can.
func (x *index) lossy() string {
	var d struct {
		Mappings struct {
			Source struct {
				Enabled  *bool    `json:"enabled"`
				Mode     string   `json:"mode"`
				Includes []string `json:"includes"`
				Excludes []string `json:"excludes"`
			} `json:"_source"`
		} `json:"mappings"`
		Settings map[string]any `json:"settings"`
	}
	if err := json.Unmarshal(x.Definition, &d); err != nil {
		return "its definition cannot be read"
	}
	s := d.Mappings.Source
	mode, _ := d.Settings["index.mapping.source.mode"].(string)
	switch {
	case s.Enabled != nil && !*s.Enabled, s.Mode == "disabled", mode == "disabled":
		return "it stores no _source"
	case len(s.Excludes) > 0:
		return "its _source leaves out " + strings.Join(s.Excludes, ", ")
	case len(s.Includes) > 0:
		return "its _source holds only " + strings.Join(s.Includes, ", ")
	case s.Mode == "synthetic", mode == "synthetic":
		return "its _source is synthetic: the original text is lost"
	case x.Closed:
		return "it is closed"
	}
	return ""
}

// exportable refuses by name what documents alone cannot carry.
func (s *session) exportable(_ context.Context, st *state) error {
	var why []string
	for _, name := range st.names() {
		if l := st.Indices[name].lossy(); l != "" {
			why = append(why, name+": "+l)
		}
	}
	for name := range st.Streams {
		why = append(why, name+": it is a data stream")
	}
	if len(why) > 0 {
		return fmt.Errorf("%s: the nodes share no directory (path.repo), and an export of documents would lose data: %s: %w: set path.repo on every node to a shared directory", s.target, strings.Join(why, "; "), plugins.ErrData)
	}
	return nil
}

// export writes every document.
func (p *pin) export(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, rep plugins.Report) (plugins.Report, error) {
	rep.Consistency = "documents exported one by one (" + p.why + "): every index as it stood when its reading began, each at its own moment"
	rep.Inexact = append(rep.Inexact, plugins.Inexact{What: "sequence numbers, creation dates and the place of documents in shards", Why: "the nodes share no directory (path.repo), so documents are exported and written anew; ids, routing, versions and _source are exact"})
	if err := p.st.strip(); err != nil {
		return rep, err
	}
	attrs := map[string]string{attrMode: modeExport, attrVersion: p.s.product.String()}
	if err := put(ctx, w, plugins.Artifact{Name: repositoryName, Pin: p.info.ID, Volatile: true, Attributes: attrs}, nil, &rep); err != nil {
		return rep, err
	}
	if err := put(ctx, w, plugins.Artifact{Name: clusterName, Pin: p.info.ID}, p.st.everything(), &rep); err != nil {
		return rep, err
	}
	var done atomic.Int64
	for _, name := range p.st.names() {
		x := p.st.Indices[name]
		if slices.Contains(p.missing, name) {
			continue
		}
		if err := put(ctx, w, plugins.Artifact{Name: indexPrefix + name, Pin: p.info.ID}, map[string][]byte{"definition": x.Definition}, &rep); err != nil {
			return rep, err
		}
		sum, err := p.exportIndex(ctx, run, x, w, &done, &rep)
		if err != nil {
			return rep, err
		}
		a := plugins.Artifact{Name: documentsPrefix + name, Pin: p.info.ID, Attributes: map[string]string{attrLife: x.life(), attrPosition: x.position(), attrBytes: fmt.Sprint(x.Bytes)}}
		if err := put(ctx, w, a, map[string][]byte{"documents": []byte(sum.String())}, &rep); err != nil {
			return rep, err
		}
	}
	p.remarks(&rep)
	return rep, nil
}

func (p *pin) exportIndex(ctx context.Context, run plugins.Run, x *index, w plugins.ArtifactWriter, done *atomic.Int64, rep *plugins.Report) (sum plugins.Digest, err error) {
	rw, err := w.Create(ctx, plugins.Artifact{Name: exportPrefix + x.Name, Form: plugins.Unordered, Pin: p.info.ID, Volatile: true})
	if err != nil {
		return sum, err
	}
	defer rw.Abort()
	var key, value []byte
	for k := range x.Shards {
		sc, err := p.s.scrollShard(ctx, x, stretch{shard: k}, func(h *hit) error {
			h.digestOf(&sum, false)
			key = append(append(append(key[:0], h.ID...), 0), h.Routing...)
			value = append(append(append(value[:0], h.Version...), 0), h.Source...)
			rep.Records++
			rep.Bytes += int64(len(key) + len(value))
			run.Report(plugins.Status{Phase: "export", Item: x.Name, Bytes: done.Add(int64(len(key) + len(value)))})
			return rw.Put(key, value)
		})
		if err == nil {
			err = sc.rest(ctx)
		}
		sc.end(ctx)
		if err != nil {
			return sum, fmt.Errorf("index %s: %w", x.Name, err)
		}
	}
	rep.Artifacts++
	return sum, rw.Commit()
}

// proveExport reads everything that will be written, before anything is touched.
func (s *session) proveExport(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, d *delta) error {
	for _, name := range d.restore() {
		var n int64
		err := entries(ctx, r, exportPrefix+name, func(k, v []byte) error {
			n += int64(len(k) + len(v))
			if bytes.IndexByte(k, 0) < 0 || bytes.IndexByte(v, 0) < 0 {
				return fmt.Errorf("artifact %s%s: record %q: %w", exportPrefix, name, k, plugins.ErrCorrupt)
			}
			return nil
		})
		if err != nil {
			return err
		}
		run.Report(plugins.Status{Phase: "check", Item: name, Bytes: n})
	}
	return nil
}

// late are settings that would change or refuse documents while they are loaded.
func late(key string) bool {
	return strings.HasPrefix(key, "index.blocks.") || key == "index.default_pipeline" || key == "index.final_pipeline"
}

// load creates the indices and writes their documents.
func (c *claim) load(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, b *content, d *delta, rep *plugins.Report) error {
	for _, name := range d.restore() {
		var def struct {
			Aliases  map[string]any `json:"aliases"`
			Mappings map[string]any `json:"mappings"`
			Settings map[string]any `json:"settings"`
		}
		dec := json.NewDecoder(bytes.NewReader(b.indices[name].definition))
		dec.UseNumber()
		if err := dec.Decode(&def); err != nil {
			return fmt.Errorf("index %s: definition: %w: %w", name, plugins.ErrCorrupt, err)
		}
		after := map[string]any{}
		for k, v := range def.Settings {
			if late(k) {
				after[k] = v
			}
		}
		maps.DeleteFunc(def.Settings, func(k string, _ any) bool { return late(k) })
		if err := c.check(ctx); err != nil {
			return err
		}
		for try := 1; ; try++ {
			err := c.s.c.put(ctx, "/"+esc(name), map[string]any{"aliases": def.Aliases, "mappings": def.Mappings, "settings": def.Settings})
			if err == nil {
				break
			}
			if !isFault(err, 400, "resource_already_exists_exception") || try == conflicts {
				return err
			}
			if err := c.deleteIndices(ctx, []string{name}); err != nil {
				return err
			}
		}
		if err := c.loadDocuments(ctx, run, r, name, rep); err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
		if len(after) > 0 {
			if err := c.s.c.put(ctx, "/"+esc(name)+"/_settings", after); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *claim) loadDocuments(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, name string, rep *plugins.Report) error {
	l := newLoader(ctx, c.s, name, run.Parallel, func() error { return c.check(ctx) })
	err := entries(ctx, r, exportPrefix+name, func(k, v []byte) error {
		id, routing, _ := bytes.Cut(k, []byte{0})
		version, source, _ := bytes.Cut(v, []byte{0})
		rep.Records++
		rep.Bytes += int64(len(k) + len(v))
		run.Report(plugins.Status{Phase: "load", Item: name, Bytes: rep.Bytes})
		return l.add(&hit{ID: id, Routing: routing, Version: version, Source: source})
	})
	return errors.Join(err, l.end())
}

// bulkBytes is about how much goes into one bulk request.
const bulkBytes = 4 << 20

// loader writes documents in bulk, with their own versions.
type loader struct {
	s     *session
	index string
	check func() error
	g     *errgroup.Group
	ctx   context.Context
	buf   []byte
}

func newLoader(ctx context.Context, s *session, index string, parallel int, check func() error) *loader {
	l := &loader{s: s, index: index, check: check}
	l.g, l.ctx = errgroup.WithContext(ctx)
	l.g.SetLimit(max(1, parallel))
	return l
}

func (l *loader) add(h *hit) error {
	if err := l.ctx.Err(); err != nil {
		return context.Cause(l.ctx)
	}
	if bytes.IndexByte(h.Source, '\n') >= 0 || bytes.IndexByte(h.Source, '\r') >= 0 {
		return l.single(h) // a bulk request is cut at line ends, and the bytes are to stay as they are
	}
	b := append(l.buf, `{"index":{"_id":"`...)
	b = append(b, h.ID...)
	if len(h.Routing) > 0 {
		b = append(append(b, `","routing":"`...), h.Routing...)
	}
	b = append(append(b, `","version":`...), h.Version...)
	b = append(append(b, `,"version_type":"external"}}`...), '\n')
	l.buf = append(append(b, h.Source...), '\n')
	if len(l.buf) < bulkBytes {
		return nil
	}
	l.flush()
	return nil
}

func (l *loader) flush() {
	body := l.buf
	l.buf = nil
	if len(body) == 0 {
		return
	}
	l.g.Go(func() error {
		if err := l.check(); err != nil {
			return err
		}
		r, err := l.s.c.send(l.ctx, "POST", "/"+esc(l.index)+"/_bulk?pipeline=_none&filter_path=errors,items.*.error", "application/x-ndjson", body)
		if err != nil {
			return err
		}
		defer r.Close()
		var a struct {
			Errors bool `json:"errors"`
			Items  []map[string]struct {
				Error struct{ Type, Reason string } `json:"error"`
			} `json:"items"`
		}
		if err := json.NewDecoder(r).Decode(&a); err != nil {
			return fmt.Errorf("bulk: %w: %w", plugins.ErrUnavailable, err)
		}
		for _, i := range a.Items {
			for _, d := range i {
				if d.Error.Type != "" {
					return fmt.Errorf("the server refused a document: %s: %s: %w", d.Error.Type, limit(d.Error.Reason, 300), plugins.ErrData)
				}
			}
		}
		return nil
	})
}

func (l *loader) single(h *hit) error {
	var id, routing string
	if err := json.Unmarshal([]byte(`"`+string(h.ID)+`"`), &id); err != nil {
		return err
	}
	path := "/" + esc(l.index) + "/_doc/" + esc(id) + "?pipeline=_none&version_type=external&version=" + string(h.Version)
	if len(h.Routing) > 0 {
		if err := json.Unmarshal([]byte(`"`+string(h.Routing)+`"`), &routing); err != nil {
			return err
		}
		path += "&routing=" + url.QueryEscape(routing)
	}
	if err := l.check(); err != nil {
		return err
	}
	r, err := l.s.c.send(l.ctx, "PUT", path, "application/json", h.Source)
	if err != nil {
		return err
	}
	return r.Close()
}

// end sends the rest and waits for all.
func (l *loader) end() error {
	l.flush()
	return l.g.Wait()
}
