package store

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Clock is the hybrid logical clock that revisions come from: milliseconds
// shifted left by 20 bits, plus a counter. A revision doubles as the local
// document id, as in collections with usesRevisionsAsDocumentIds.
type Clock struct {
	mu   sync.Mutex
	last uint64
}

// Next answers a revision above all earlier ones.
func (c *Clock) Next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, uint64(time.Now().UnixMilli())<<20)
	return c.last
}

// Saw makes sure that Next answers above a revision that came from outside.
func (c *Clock) Saw(rev uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, rev)
}

// revisionDigits is the server's encoding table (HybridLogicalClock.cpp).
const revisionDigits = "-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// EncodeRevision writes a revision as _rev shows it.
func EncodeRevision(rev uint64) string {
	var b [11]byte
	i := len(b)
	for ; rev > 0; rev >>= 6 {
		i--
		b[i] = revisionDigits[rev&63]
	}
	return string(b[i:])
}

// DecodeRevision reads a _rev.
func DecodeRevision(s string) (uint64, error) {
	if s == "" || len(s) > 11 {
		return 0, fmt.Errorf("revision %q has a wrong length", s)
	}
	var rev uint64
	for i := range len(s) {
		d := strings.IndexByte(revisionDigits, s[i])
		if d < 0 {
			return 0, fmt.Errorf("revision %q has a character that revisions do not have", s)
		}
		rev = rev<<6 | uint64(d)
	}
	return rev, nil
}
