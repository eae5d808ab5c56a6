package server

import (
	"sync"
	"time"
)

// holders keeps things that end by themselves: each has a time to live that use prolongs.
type holders[T interface{ release() }] struct {
	mu  sync.Mutex
	all map[string]*held[T]
}

type held[T any] struct {
	item  T
	ttl   time.Duration
	until time.Time
}

func (h *holders[T]) put(id string, item T, ttl time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[string]*held[T]{}
	}
	h.all[id] = &held[T]{item, ttl, time.Now().Add(ttl)}
}

// get answers the item and prolongs its life; a ttl of 0 keeps the one it has.
func (h *holders[T]) get(id string, ttl time.Duration) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x, ok := h.all[id]
	if !ok || time.Now().After(x.until) {
		var none T
		return none, false
	}
	if ttl > 0 {
		x.ttl = ttl
	}
	x.until = time.Now().Add(x.ttl)
	return x.item, true
}

// remove ends an item; it answers false when there is none.
func (h *holders[T]) remove(id string) bool {
	h.mu.Lock()
	x, ok := h.all[id]
	delete(h.all, id)
	h.mu.Unlock()
	if ok {
		x.item.release()
	}
	return ok
}

func (h *holders[T]) expire(now time.Time) {
	h.mu.Lock()
	var ended []T
	for id, x := range h.all {
		if now.After(x.until) {
			ended = append(ended, x.item)
			delete(h.all, id)
		}
	}
	h.mu.Unlock()
	for _, item := range ended {
		item.release()
	}
}

func (h *holders[T]) closeAll() { h.expire(time.Now().Add(1000 * time.Hour)) }

// each calls f with every living item.
func (h *holders[T]) each(f func(id string, item T)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, x := range h.all {
		f(id, x.item)
	}
}
