package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Artifacts that prove equality.
const (
	clusterName     = "cluster"    // "kind/name" → object, data streams included
	indexPrefix     = "index/"     // and the name: one record, the definition
	documentsPrefix = "documents/" // and the name: for each shard the digest of its documents

	attrMode, attrVersion, attrSnapshot             = "mode", "version", "snapshot"
	attrLife, attrPosition, attrUnproved, attrBytes = "life", "position", "unproved", "bytes" // of documents: what identifies their content

	modeSnapshot = "snapshot"
	modeExport   = "export"

	kindStream = "data_stream"
)

// everything is the cluster's objects and data streams.
func (st *state) everything() map[string][]byte {
	out := maps.Clone(st.Objects)
	for name, b := range st.Streams {
		out[kindStream+"/"+name] = b
	}
	return out
}

// put writes one small ordered artifact.
func put(ctx context.Context, w plugins.ArtifactWriter, a plugins.Artifact, recs map[string][]byte, rep *plugins.Report) error {
	a.Form = plugins.Ordered
	rw, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer rw.Abort()
	for _, k := range slices.Sorted(maps.Keys(recs)) {
		if err := rw.Put([]byte(k), recs[k]); err != nil {
			return err
		}
		rep.Records++
		rep.Bytes += int64(len(k) + len(recs[k]))
	}
	rep.Artifacts++
	return rw.Commit()
}

// describe writes definitions, objects and the digests of the documents.
func (p *pin) describe(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, rep *plugins.Report) error {
	if err := put(ctx, w, plugins.Artifact{Name: clusterName, Pin: p.info.ID}, p.st.everything(), rep); err != nil {
		return err
	}
	for _, name := range p.st.names() {
		if slices.Contains(p.missing, name) {
			continue
		}
		a := plugins.Artifact{Name: indexPrefix + name, Pin: p.info.ID, Volatile: p.moved[name] != ""}
		if err := put(ctx, w, a, map[string][]byte{"definition": p.st.Indices[name].Definition}, rep); err != nil {
			return err
		}
	}
	var docs int64
	for _, x := range p.st.Indices {
		for _, sh := range x.Shards {
			docs += sh.Docs
		}
	}
	var done atomic.Int64
	for _, name := range p.st.names() {
		if slices.Contains(p.missing, name) {
			continue
		}
		x := p.st.Indices[name]
		a := plugins.Artifact{Name: documentsPrefix + name, Form: plugins.Ordered, Pin: p.info.ID,
			Attributes: map[string]string{attrLife: x.life(), attrPosition: x.position(), attrBytes: fmt.Sprint(x.Bytes)}}
		_, moved := p.moved[name]
		if moved {
			a.Volatile, a.Attributes[attrUnproved] = true, "yes"
			if err := put(ctx, w, a, map[string][]byte{"unproved": nil}, rep); err != nil {
				return err
			}
			continue
		}
		a.Identity = x.life() + " " + x.position()
		if p.s.reading(x) == readSample {
			a.Identity += " sample"
		}
		if ok, err := w.Reuse(ctx, a); err != nil || ok {
			if err != nil {
				return err
			}
			continue
		}
		recs, proved, err := p.digests(ctx, run, x, func(n int64) {
			if all := done.Add(n); p.copied.Load() {
				run.Report(plugins.Status{Phase: "digest", Item: name, Bytes: all, Total: docs})
			}
		})
		if err != nil {
			return err
		}
		if !proved {
			a.Volatile, a.Identity, a.Attributes[attrUnproved] = true, "", "yes"
			p.moved[name] = ""
		}
		if err := put(ctx, w, a, recs, rep); err != nil {
			return err
		}
	}
	return nil
}

// digests finishes the views of an index; without views it reads the shards now, and looks
// whether they still are what the snapshot holds.
func (p *pin) digests(ctx context.Context, run plugins.Run, x *index, progress func(int64)) (recs map[string][]byte, proved bool, err error) {
	views, how := p.views[x.Name], p.s.reading(x)
	delete(p.views, x.Name)
	if x.Closed || len(views) == 0 {
		recs, err = p.s.digestIndex(ctx, run, x, how, progress)
		if err != nil || x.Closed {
			return recs, true, err
		}
		same, err := p.still(ctx, x)
		if err != nil {
			return nil, false, err
		}
		if !same {
			return map[string][]byte{"unproved": nil}, false, nil
		}
		return recs, true, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	var parts []stretch
	for _, v := range views {
		parts = append(parts, v.part)
		g.Go(func() error {
			defer v.scroll.end(ctx)
			err := v.scroll.rest(gctx)
			progress(v.digest.Records)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		return nil, false, fmt.Errorf("index %s: %w", x.Name, err)
	}
	read := make([]plugins.Digest, len(views))
	for i, v := range views {
		read[i] = v.digest
	}
	recs = records(how, parts, read)
	if how != readSample {
		return recs, true, nil
	}
	// The sequence numbers are read now, and count if nothing was written since the snapshot began.
	with := maps.Clone(recs)
	if err := p.s.sequences(ctx, x, with); err != nil && !errors.Is(err, plugins.ErrNotFound) {
		return nil, false, err
	}
	if same, err := p.still(ctx, x); err != nil || !same {
		return recs, true, err
	}
	return with, true, nil
}

// still says whether an index is what it was when the snapshot began.
func (p *pin) still(ctx context.Context, x *index) (bool, error) {
	now, err := p.s.state(ctx)
	if err != nil {
		return false, err
	}
	same := now.Indices[x.Name]
	return same != nil && same.life() == x.life() && same.position() == x.position(), nil
}

// Digest reads the live data: definitions, objects and all documents.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	st, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	seq := true
	if _, err := s.findPlace(ctx); err != nil {
		if !isNoPlace(err) {
			return nil, err
		}
		seq = false
		if err := st.strip(); err != nil {
			return nil, err
		}
	}
	out := map[string]plugins.Digest{clusterName: digestRecords(st.everything())}
	for _, name := range st.names() {
		x := st.Indices[name]
		out[indexPrefix+name] = digestRecords(map[string][]byte{"definition": x.Definition})
		how := readPortable
		if seq {
			how = s.reading(x)
		}
		recs, err := s.digestIndex(ctx, run, x, how, func(int64) {})
		if err != nil {
			return nil, err
		}
		out[documentsPrefix+name] = digestRecords(recs)
		run.Report(plugins.Status{Phase: "digest", Item: name})
	}
	return out, nil
}

func digestRecords(recs map[string][]byte) plugins.Digest {
	var d plugins.Digest
	for k, v := range recs {
		d.Add([]byte(k), v)
	}
	return d
}

// content is what a backup holds beside the repository and exported documents.
type content struct {
	mode    string
	version string
	pin     string
	objects map[string][]byte     // of the cluster, without data streams
	streams map[string][]byte     // by name
	indices map[string]*described // by name
	infos   map[string]plugins.ArtifactInfo
}

// described is one index of a backup.
type described struct {
	definition []byte
	documents  map[string][]byte
	attrs      map[string]string // of the documents
	unproved   bool
	unsure     bool // the definition changed while the snapshot began
}

// readContent reads all small artifacts: a damaged one is found before anything is touched.
func readContent(ctx context.Context, r plugins.ArtifactReader) (*content, error) {
	c := &content{objects: map[string][]byte{}, streams: map[string][]byte{}, indices: map[string]*described{}, infos: map[string]plugins.ArtifactInfo{}}
	at := func(name string) *described {
		if c.indices[name] == nil {
			c.indices[name] = &described{documents: map[string][]byte{}}
		}
		return c.indices[name]
	}
	for _, a := range r.Artifacts() {
		c.infos[a.Name] = a
		read := func(each func(k string, v []byte)) error {
			return entries(ctx, r, a.Name, func(k, v []byte) error { each(string(k), slices.Clone(v)); return nil })
		}
		var err error
		switch name, is := cut(a.Name); is {
		case clusterName:
			c.pin = a.Pin
			err = read(func(k string, v []byte) {
				if name, ok := strings.CutPrefix(k, kindStream+"/"); ok {
					c.streams[name] = v
				} else {
					c.objects[k] = v
				}
			})
		case indexPrefix:
			d := at(name)
			d.unsure = a.Volatile
			err = read(func(k string, v []byte) { d.definition = v })
		case documentsPrefix:
			d := at(name)
			d.attrs, d.unproved = a.Attributes, a.Attributes[attrUnproved] != ""
			err = read(func(k string, v []byte) { d.documents[k] = v })
		case repositoryName:
			c.mode, c.version = a.Attributes[attrMode], a.Attributes[attrVersion]
		}
		if err != nil {
			return nil, err
		}
	}
	for name, d := range c.indices {
		if d.definition == nil {
			return nil, fmt.Errorf("index %s has no definition in the backup: %w", name, plugins.ErrCorrupt)
		}
	}
	if c.mode != modeSnapshot && c.mode != modeExport || c.pin == "" {
		return nil, fmt.Errorf("the backup holds neither a snapshot nor an export: %w", plugins.ErrCorrupt)
	}
	return c, nil
}

// cut splits the name of an artifact into what it is and of which index.
func cut(name string) (rest, is string) {
	for _, p := range []string{indexPrefix, documentsPrefix} {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return rest, p
		}
	}
	return "", name
}
