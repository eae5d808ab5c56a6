package zookeeper

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	maxGroup  = 1000      // changes in one multi
	maxMulti  = 700 << 10 // bytes of one multi: transactions near 1 MB can make servers unavailable (ZOOKEEPER-2101)
	maxPacket = 1<<20 - 1 // jute.maxbuffer's default
	inFlight  = 8         // multis sent ahead of the answers
)

// applier writes on one session, whose requests the server carries out in order.
type applier struct {
	s       *session
	run     plugins.Run
	conn    *zkwire.Conn
	rep     *plugins.Report
	claimed bool
	c       claim
	group   int   // changes in one multi; shrinks when somebody else writes
	zxid    int64 // of our last write
	wrote   int64
	changed bool
	padded  bool

	conflict  string // what somebody else changed
	disturbed bool   // and went on doing so until the end
}

func (a *applier) claim(ctx context.Context, m plugins.Member) error {
	c, err := a.s.take(ctx, a.run, m, a.conn)
	a.c, a.claimed = c, err == nil
	return err
}

// change is what is done to one znode, in one multi. single: it is one request that cannot stand in a multi.
type change struct {
	path   string
	reqs   []zkwire.Request
	single bool
	weight int64
}

func one(path string, req zkwire.Request, weight int64) change {
	return change{path: path, reqs: []zkwire.Request{req}, weight: weight}
}

func (c change) size() int {
	n := 0
	for _, r := range c.reqs {
		n += r.Size()
	}
	return n
}

// batch is what was sent as one message.
type batch struct {
	changes []change
	guarded bool
}

// path names the znode of the i-th request.
func (b batch) path(i int) string {
	for _, c := range b.changes {
		if i < len(c.reqs) {
			return c.path
		}
		i -= len(c.reqs)
	}
	return b.changes[0].path
}

// structure removes what is in the way, creates and changes, then removes what appeared later.
func (a *applier) structure(ctx context.Context, d *delta, live *tree, sp *spool.Spool) error {
	a.changed = true
	if len(d.gone) > 0 {
		a.rep.Warnings = append(a.rep.Warnings, fmt.Sprintf("%d ephemeral znodes stood where the backup has others, or below znodes that appeared later, and were removed: %s", len(d.gone), some(d.gone)))
	}
	var buf []byte
	err := a.send(ctx, func(yield func(change, error) bool) {
		for _, p := range d.gone {
			if !yield(one(p, zkwire.Delete(p, -1), 0), nil) {
				return
			}
		}
		if !removals(d.first, yield) {
			return
		}
		for _, w := range merge(d.add, d.set) {
			data, err := sp.Get(w.data, &buf)
			if err != nil {
				yield(change{}, err)
				return
			}
			for _, c := range w.changes(live.acls.list[w.acl], data) {
				if !yield(c, nil) {
					return
				}
			}
		}
		removals(d.extra, yield)
	})
	a.rep.Removed += len(d.extra)
	return err
}

// removals deletes children before their parents.
func removals(nodes []*node, yield func(change, error) bool) bool {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(b.path, a.path) })
	for _, n := range nodes {
		if !yield(one(n.path, zkwire.Delete(n.path, -1), 0), nil) {
			return false
		}
	}
	return true
}

func merge(a, b []wanted) []wanted {
	out := append(slices.Clone(a), b...)
	slices.SortFunc(out, func(a, b wanted) int { return strings.Compare(a.path, b.path) })
	return out
}

// changes are the requests that make the live znode as wanted.
func (w wanted) changes(acl []zkwire.ACL, data []byte) []change {
	size := int64(len(w.path) + len(data))
	if w.live == nil {
		return []change{one(w.path, w.request(acl, data), size)}
	}
	var out []change
	if w.setData {
		if w.null {
			data = nil
		} else if data == nil {
			data = []byte{}
		}
		out = append(out, one(w.path, zkwire.SetData(w.path, data, -1), size))
	}
	if w.setACL {
		c := one(w.path, zkwire.SetACL(w.path, acl, w.live.stat.aversion), int64(len(w.path)))
		c.single = true
		out = append(out, c)
	}
	return out
}

// send packs the changes into multis, keeps a few on the way and reads the
// answers. A change that somebody else's write made impossible is left to the next pass.
func (a *applier) send(ctx context.Context, each iter.Seq2[change, error]) error {
	var mu sync.Mutex
	var sent []batch
	next, stop := iter.Pull2(each)
	defer stop()
	var held *change
	conflicts := 0
	build := func() (zkwire.Request, bool, error) {
		var b batch
		size := a.c.check().Size() + 64
		for len(b.changes) < a.group {
			var c change
			if held != nil {
				c, held = *held, nil
			} else {
				x, err, ok := next()
				if err != nil {
					return zkwire.Request{}, false, err
				}
				if !ok {
					break
				}
				c = x
			}
			c.single = c.single || size+c.size() > maxPacket
			if len(b.changes) > 0 && (c.single || size+c.size() > maxMulti) {
				held = &c
				break
			}
			b.changes = append(b.changes, c)
			size += c.size()
			if c.single {
				break
			}
		}
		if len(b.changes) == 0 {
			return zkwire.Request{}, false, nil
		}
		b.guarded = !b.changes[0].single
		mu.Lock()
		sent = append(sent, b)
		mu.Unlock()
		if !b.guarded {
			return b.changes[0].reqs[0], true, nil
		}
		ops := []zkwire.Request{a.c.check()}
		for _, c := range b.changes {
			ops = append(ops, c.reqs...)
		}
		return zkwire.Multi(ops...), true, nil
	}
	err := a.conn.Stream(ctx, inFlight, build, func(r zkwire.Reply) error {
		mu.Lock()
		b := sent[0]
		sent = sent[1:]
		mu.Unlock()
		return a.answer(b, r, &conflicts)
	})
	if conflicts > 0 {
		a.group = max(1, a.group/30)
	}
	return err
}

func (a *applier) answer(b batch, r zkwire.Reply, conflicts *int) error {
	at, code := 0, r.Code
	if b.guarded {
		var err error
		if at, code, err = r.MultiResult(); err != nil {
			return err
		}
		if code == zkwire.OK {
			at = -1
		} else if at--; at < 0 {
			return fmt.Errorf("%s: %s is no longer ours (%w): %w", a.s.target, epochPath, code, plugins.ErrFenced)
		}
	}
	switch code {
	case zkwire.OK:
		a.zxid = max(a.zxid, r.Zxid)
		for _, c := range b.changes {
			a.wrote += c.weight
			a.rep.Records++
			a.rep.Bytes += c.weight
		}
		a.run.Report(plugins.Status{Phase: "load", Item: b.changes[0].path, Bytes: a.wrote})
		return nil
	case zkwire.NoNode, zkwire.NodeExists, zkwire.NotEmpty, zkwire.BadVersion:
		*conflicts++
		a.conflict = fmt.Sprintf("%s: %v", b.path(at), code)
		return nil
	}
	return a.s.fault(b.path(at), code)
}

// pad moves sequence counters forward: a child created and removed in one multi counts and is never seen.
func (a *applier) pad(ctx context.Context, pads []padding) error {
	able, not := affordable(pads)
	for _, p := range not {
		a.rep.Inexact = append(a.rep.Inexact, p.inexact())
		a.rep.Warnings = append(a.rep.Warnings, fmt.Sprintf("%s: %s", p.inexact().What, p.inexact().Why))
	}
	open := []zkwire.ACL{{Perms: 31, Scheme: "world", ID: "anyone"}}
	return a.send(ctx, func(yield func(change, error) bool) {
		for _, p := range able {
			child := join(p.path, padName)
			pair := change{path: p.path, reqs: []zkwire.Request{zkwire.Create(child, nil, open, 0), zkwire.Delete(child, -1)}}
			for range p.want - p.have {
				if !yield(pair, nil) {
					return
				}
			}
		}
	})
}

func (a *applier) finish() {
	if a.changed {
		a.rep.Artifacts = 1
	}
	a.rep.Unchanged = 2 - a.rep.Artifacts // tree and types; the numbers of stats are the server's
}
