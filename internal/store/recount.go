package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// partCheck is what one part must turn out to hold. The boundary keys are
// held as a hash: there may be a million of them.
type partCheck struct {
	part   manifest.Part
	form   plugins.Form
	offset int64 // File: of the part in the artifact
	digest plugins.Digest
	bytes  int64
	bounds [sha256.Size]byte
}

func boundsHash(first, last []byte) [sha256.Size]byte {
	b := binary.AppendUvarint(nil, uint64(len(first)))
	return sha256.Sum256(append(append(b, first...), last...))
}

// plan reads the indexes and notes, piece by piece, what must be found.
func (c *unitCheck) plan(ctx context.Context) error {
	c.parts = make([][]partCheck, len(c.f.Pieces))
	byIndex := indexOrder(c.f)
	var l *loaded
	defer func() {
		if l != nil {
			l.close()
		}
	}()
	bad := -1 // index piece already found damaged
	for _, i := range byIndex {
		a := &c.f.Artifacts[i]
		p := c.f.Pieces[a.Index.Piece]
		if a.Index.Piece == bad {
			continue
		}
		if l == nil || l.p.ID != p.ID || l.behind(a.Index.Offset) {
			if l != nil {
				l.close()
			}
			var err error
			if l, err = c.o.load(ctx, p); err != nil {
				l, bad = nil, a.Index.Piece
				if err := c.v.found(c.id, p.ID, err); err != nil {
					return err
				}
				continue
			}
		}
		err := c.planArtifact(l, a)
		if err := c.v.found(c.id, p.ID, err); err != nil {
			return err
		}
	}
	for _, ps := range c.parts {
		slices.SortFunc(ps, func(a, b partCheck) int { return int(a.part.Offset - b.part.Offset) })
	}
	return nil
}

func (c *unitCheck) planArtifact(l *loaded, a *manifest.Artifact) error {
	blob, err := readPart(l, a.Index, nil)
	if err != nil {
		return err
	}
	d, es, err := decodeIndex(blob, len(a.Parts))
	if err != nil || manifest.DigestCheck(c.v.content, d) != a.Check {
		return fmt.Errorf("artifact %q: its index does not fit its list: %w", a.Name, errors.Join(plugins.ErrCorrupt, err))
	}
	var off, payload int64
	for i, e := range es {
		if a.Form == plugins.Ordered && i > 0 && bytes.Compare(es[i-1].last, e.first) >= 0 {
			return fmt.Errorf("artifact %q: pieces %d and %d overlap: %w", a.Name, i-1, i, plugins.ErrCorrupt)
		}
		q := a.Parts[i]
		c.parts[q.Piece] = append(c.parts[q.Piece], partCheck{part: q, form: a.Form, offset: off, digest: e.digest, bytes: e.bytes, bounds: boundsHash(e.first, e.last)})
		off += q.Length
		payload += e.bytes
	}
	if payload != a.Bytes {
		return fmt.Errorf("artifact %q: its index does not fit its list: %w", a.Name, plugins.ErrCorrupt)
	}
	return nil
}

// decode proves a piece and recounts the parts in it.
func (c *unitCheck) decode(ctx context.Context, i int) error {
	if p := c.f.Pieces[i]; p.Cut > 0 {
		return c.decodeStretch(ctx, p, c.parts[i])
	}
	l, err := c.o.load(ctx, c.f.Pieces[i])
	if err != nil {
		return err
	}
	defer func() { l.close() }()
	for n, p := range c.parts[i] {
		if n > 0 && p.same(c.parts[i][n-1]) {
			continue // a stretch that two artifacts share
		}
		if l.behind(p.part.Offset) {
			l.close()
			if l, err = c.o.load(ctx, c.f.Pieces[i]); err != nil {
				return err
			}
		}
		if err := l.seek(p.part.Offset); err != nil {
			return err
		}
		if err := p.recount(ctx, l); err != nil {
			return fmt.Errorf("piece %s at %d: %w", c.f.Pieces[i].ID, p.part.Offset, err)
		}
	}
	return nil
}

// decodeStretch proves a piece whose content id is made of the digest that its parts must have.
func (c *unitCheck) decodeStretch(ctx context.Context, p manifest.Piece, parts []partCheck) error {
	sum, err := c.o.prove(ctx, p)
	if err != nil {
		return err
	}
	var d plugins.Digest
	d.AddHash(sum)
	for _, q := range parts {
		if q.form != plugins.File || q.offset != (p.Cut-1)*plugins.FileCut || q.part.Offset != 0 || q.part.Length != p.Bytes || q.bytes != p.Bytes || q.digest != d {
			return fmt.Errorf("piece %s: digest differs: %w", p.ID, plugins.ErrCorrupt)
		}
	}
	return nil
}

func (p *partCheck) same(o partCheck) bool {
	return p.part.Offset == o.part.Offset && p.part.Length == o.part.Length && p.part.Records == o.part.Records &&
		p.form == o.form && p.offset == o.offset && p.digest == o.digest && p.bytes == o.bytes && p.bounds == o.bounds
}

func (p *partCheck) recount(ctx context.Context, src io.Reader) error {
	if p.form == plugins.File {
		h := newStretchHash(p.offset)
		n, err := io.CopyN(h, src, p.part.Length)
		if err != nil {
			return err
		}
		var d plugins.Digest
		d.AddHash([sha256.Size]byte(h.Sum(nil)))
		if d != p.digest || n != p.bytes {
			return fmt.Errorf("digest differs: %w", plugins.ErrCorrupt)
		}
		return nil
	}
	var d plugins.Digest
	var n int64
	var first, last []byte
	var scan recordScanner
	scan.reset(src, p.part.Length)
	for {
		if d.Records&0xfff == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k, v, err := scan.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("record %d: %w: %w", d.Records, plugins.ErrCorrupt, err)
		}
		if p.form == plugins.Ordered {
			if d.Records == 0 {
				first = bytes.Clone(k)
			} else if bytes.Compare(k, last) <= 0 {
				return fmt.Errorf("record %d: keys out of order: %w", d.Records, plugins.ErrCorrupt)
			}
			last = append(last[:0], k...)
		}
		d.Add(k, v)
		n += int64(len(k) + len(v))
	}
	if d != p.digest || d.Records != p.part.Records || n != p.bytes || boundsHash(first, last) != p.bounds {
		return fmt.Errorf("records, bytes, digest or boundary keys differ: %w", plugins.ErrCorrupt)
	}
	return nil
}
