package store

import (
	"context"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// packCache keeps the packs used last, proven and decoded: a unit of ten
// thousand small tables is a few packs, each to be decoded once.
type packCache struct {
	mu    sync.Mutex
	packs [3]*cachedPack // the one used last comes first; nil: free
}

type cachedPack struct {
	cache *packCache
	l     *loaded
	refs  int // under cache.mu
}

func (p *cachedPack) release() {
	p.cache.mu.Lock()
	defer p.cache.mu.Unlock()
	p.refs--
}

// loadPart proves the piece that a part lies in. Packs come from the cache.
func (u *UnitReader) loadPart(ctx context.Context, p manifest.Part) (*loaded, error) {
	piece := u.file.Pieces[p.Piece]
	if p.ID == nil {
		return u.o.load(ctx, piece)
	}
	c := &u.packs
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range c.packs {
		if k != nil && k.l.p.ID == piece.ID {
			copy(c.packs[1:i+1], c.packs[:i])
			c.packs[0] = k
			return k.view(), nil
		}
	}
	last := len(c.packs) - 1
	if old := c.packs[last]; old != nil && old.refs == 0 {
		old.l.close()
		c.packs[last] = nil
	}
	l, err := u.o.load(ctx, piece)
	if err != nil || l.chunks == nil || c.packs[last] != nil {
		return l, err // no memory to keep it, or all places in use
	}
	copy(c.packs[1:], c.packs[:last])
	c.packs[0] = &cachedPack{cache: c, l: l}
	return c.packs[0].view(), nil
}

// view is a reader of the pack of its own; the cache is locked.
func (p *cachedPack) view() *loaded {
	p.refs++
	return &loaded{o: p.l.o, p: p.l.p, chunks: p.l.chunks, shared: p}
}

// drop gives the memory back. No reader is open any more.
func (c *packCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range c.packs {
		if k != nil {
			k.l.close()
			c.packs[i] = nil
		}
	}
}
