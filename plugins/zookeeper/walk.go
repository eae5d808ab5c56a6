package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	memoryBound  = 8 << 20 // bytes of znode data in memory; what is above goes into the encrypted spool
	maxPasses    = 10
	maxBatch     = 500       // znodes in one multiRead
	maxRequest   = 500 << 10 // bytes of one multiRead request; servers refuse more than 1 MB
	bestResponse = 1 << 20   // bytes of an answer for which the batch is sized
)

// walker reads the tree over several sessions on one member.
type walker struct {
	s     *session
	conns []*zkwire.Conn
	multi bool // the server knows multiRead
	t     *tree
	start int64 // zxid before the first pass

	mu    sync.Mutex
	cond  *sync.Cond
	queue []string
	busy  int // batches being read
	batch int // znodes in the next batch
	pass  int16
	moved []string // changed since the last pass
	still bool     // every answer of this pass carried the zxid start
	bytes int64
	fail  error
	each  func(bytes int64)
}

// newWalker connects to one member.
func (s *session) newWalker(ctx context.Context, scratch string) (*walker, error) {
	first, m, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	w := &walker{s: s, conns: []*zkwire.Conn{first}, batch: 16, multi: s.members[0].Options["bulk_reads"] != "no"}
	w.cond = sync.NewCond(&w.mu)
	w.t = &tree{nodes: map[string]*node{}, ephemerals: map[string]zkwire.Stat{}, acls: newACLTable(), spool: spool.New(scratch, memoryBound), member: m.Name}
	for len(w.conns) < walkers {
		c, err := s.dialMember(ctx, m)
		if err != nil {
			break // servers limit the connections of one client: fewer do as well
		}
		w.conns = append(w.conns, c)
	}
	if err := w.prepare(ctx, m); err != nil {
		w.close()
		w.t.spool.Close()
		return nil, err
	}
	return w, nil
}

func (w *walker) close() {
	var wg sync.WaitGroup
	for _, c := range w.conns {
		wg.Go(func() { c.Close() })
	}
	wg.Wait()
}

// prepare brings the member up to date and learns what it can do.
func (w *walker) prepare(ctx context.Context, m plugins.Member) error {
	c := w.conns[0]
	err := c.Do(ctx, zkwire.Sync("/"), func(r zkwire.Reply) error {
		if r.Code != zkwire.OK {
			return w.s.fault("/", r.Code)
		}
		return nil
	})
	if err != nil {
		return err
	}
	probe := zkwire.Exists("/")
	if w.multi {
		probe = zkwire.MultiRead([]string{"/"})
	}
	err = c.Do(ctx, probe, func(r zkwire.Reply) error {
		w.start = r.Zxid
		w.multi = w.multi && r.Code != zkwire.Unimplemented
		return nil
	})
	if ctx.Err() != nil || err == nil && (w.multi || probe.Op != zkwire.OpMultiRead) {
		return err
	}
	// Servers before 3.6 end the session of one who sends a request they do not know.
	w.multi = false
	again, err := w.s.dialMember(ctx, m)
	if err != nil {
		return err
	}
	c.Close()
	w.conns[0] = again
	return w.conns[0].Do(ctx, zkwire.Exists("/"), func(r zkwire.Reply) error {
		w.start = r.Zxid
		return nil
	})
}

// walkOptions says what a reading is for.
type walkOptions struct {
	acls  bool   // read access lists
	quiet bool   // read until nothing moves
	known *known // access lists of an earlier reading, taken over where they cannot have changed
	files bool   // learn types and access lists from the server's own files
	each  func(bytes int64)
}

// walk reads the tree. The caller closes the tree's spool.
func (s *session) walk(ctx context.Context, scratch string, o walkOptions) (*tree, error) {
	w, err := s.newWalker(ctx, scratch)
	if err != nil {
		return nil, err
	}
	defer w.close()
	w.each = o.each
	if w.each == nil {
		w.each = func(int64) {}
	}
	if err := w.run(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("%s, read from %s: %w", s.target, w.t.member, err), w.t.spool.Close())
	}
	return w.t, nil
}

func (w *walker) run(ctx context.Context, o walkOptions) error {
	for {
		w.pass++
		w.moved, w.still, w.t.denied = nil, true, nil
		if err := w.readAll(ctx); err != nil {
			return err
		}
		w.t.passes = int(w.pass)
		if o.files && (w.pass == 1 || w.t.kindsKnown) {
			w.s.learn(ctx, w.t) // again in later passes, for znodes that came meanwhile
		}
		if o.known != nil {
			w.takeOver(o.known)
		}
		if o.acls && len(w.t.denied) == 0 {
			if err := w.readACLs(ctx); err != nil {
				return err
			}
		}
		w.t.busy = w.moved
		w.t.quiet = w.still || w.pass > 1 && len(w.moved) == 0
		if !o.quiet || w.t.quiet || w.pass == maxPasses || len(w.t.denied) > 0 {
			return nil
		}
	}
}

// readAll reads every znode once.
func (w *walker) readAll(ctx context.Context) error {
	w.queue, w.busy = []string{"/"}, 0
	clear(w.t.ephemerals)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cond.Broadcast()
	})
	defer stop()
	var wg sync.WaitGroup
	for _, c := range w.conns {
		wg.Go(func() {
			if err := w.work(ctx, c); err != nil {
				w.mu.Lock()
				if w.fail == nil {
					w.fail = err
				}
				w.mu.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
	if w.fail != nil {
		return w.fail
	}
	for p, n := range w.t.nodes {
		if n.pass != w.pass {
			w.moved = append(w.moved, p)
			delete(w.t.nodes, p)
		}
	}
	return nil
}

func (w *walker) work(ctx context.Context, c *zkwire.Conn) error {
	for {
		batch := w.take(ctx)
		if batch == nil {
			return ctx.Err()
		}
		var found []string
		var size int
		err := w.read(ctx, c, batch, func(i int, n zkwire.Node, zxid int64) error {
			size += len(n.Data)
			return w.saw(batch[i], n, zxid, &found)
		})
		w.mu.Lock()
		w.queue = append(w.queue, found...)
		w.busy--
		w.bytes += int64(size)
		w.each(w.bytes)
		// Grow while answers are small; a run of large znodes shrinks the batch at once.
		w.batch = max(1, min(maxBatch, 2*len(batch), max(1, bestResponse*len(batch)/(size+1))))
		w.cond.Broadcast()
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take waits for work; nil when there will be none.
func (w *walker) take(ctx context.Context) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) == 0 {
		if w.busy == 0 || ctx.Err() != nil {
			return nil
		}
		w.cond.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	size := 0
	n := 0
	for n < min(w.batch, len(w.queue)) {
		size += zkwire.MultiReadSize(w.queue[len(w.queue)-1-n])
		if n > 0 && size > maxRequest {
			break
		}
		n++
	}
	// The newest first: the queue stays short, and siblings are read together.
	batch := append([]string(nil), w.queue[len(w.queue)-n:]...)
	w.queue = w.queue[:len(w.queue)-n]
	w.busy++
	return batch
}

// read reads a batch, in one message where the server can.
func (w *walker) read(ctx context.Context, c *zkwire.Conn, batch []string, each func(int, zkwire.Node, int64) error) error {
	if w.multi {
		return c.Do(ctx, zkwire.MultiRead(batch), func(r zkwire.Reply) error {
			return r.Nodes(len(batch), func(i int, n zkwire.Node) error { return each(i, n, r.Zxid) })
		})
	}
	sent, got := 0, 0
	var cur zkwire.Node
	return c.Stream(ctx, 100, func() (zkwire.Request, bool, error) {
		i := sent / 2
		if i == len(batch) {
			return zkwire.Request{}, false, nil
		}
		sent++
		if sent%2 == 1 {
			return zkwire.GetData(batch[i]), true, nil
		}
		return zkwire.GetChildren(batch[i]), true, nil
	}, func(r zkwire.Reply) error {
		got++
		d := zkwire.Decoder{B: r.Body}
		if r.Code != zkwire.OK {
			cur.Code = r.Code
		} else if got%2 == 1 {
			cur.Data, cur.Stat = append([]byte(nil), d.Bytes()...), d.Stat()
			if len(r.Body) >= 4 && string(r.Body[:4]) != "\xff\xff\xff\xff" && cur.Data == nil {
				cur.Data = []byte{}
			}
		} else {
			cur.Children = d.Strings()
		}
		if d.Err != nil || got%2 == 1 {
			return d.Err
		}
		n := cur
		cur = zkwire.Node{}
		return each(got/2-1, n, r.Zxid)
	})
}

// saw takes in one znode.
func (w *walker) saw(p string, n zkwire.Node, zxid int64, found *[]string) error {
	switch n.Code {
	case zkwire.OK:
	case zkwire.NoNode: // removed since its parent was read
		w.mu.Lock()
		w.still = false
		w.mu.Unlock()
		return nil
	case zkwire.NoAuth:
		if !owned(p) {
			w.mu.Lock()
			w.t.denied = append(w.t.denied, p)
			w.mu.Unlock()
		}
		return nil
	default:
		return w.s.fault(p, n.Code)
	}
	for _, c := range n.Children {
		if child := join(p, c); !within(child, configPath) && !within(child, ownPath) {
			*found = append(*found, child)
		}
	}
	w.mu.Lock()
	w.t.zxid = max(w.t.zxid, zxid)
	w.still = w.still && zxid == w.start
	if n.Stat.EphemeralOwner != 0 {
		w.t.ephemerals[p] = n.Stat
		w.mu.Unlock()
		return nil
	}
	if owned(p) {
		w.mu.Unlock()
		return nil
	}
	old := w.t.nodes[p]
	w.mu.Unlock()
	if old != nil && old.stat.czxid == n.Stat.Czxid && old.stat.mzxid == n.Stat.Mzxid {
		if old.stat.aversion != n.Stat.Aversion {
			w.mu.Lock()
			w.moved = append(w.moved, p)
			w.mu.Unlock()
			old.acl = unknownACL
		}
		old.stat, old.pass = statsOf(n.Stat), w.pass
		return nil
	}
	x := &node{path: p, stat: statsOf(n.Stat), null: n.Data == nil, acl: unknownACL, pass: w.pass}
	if !masked(p) {
		var err error
		if x.data, err = w.t.spool.Put(n.Data); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pass > 1 && !masked(p) {
		w.moved = append(w.moved, p)
	}
	w.t.nodes[p] = x
	return nil
}

// complete refuses a reading that lacks something, and mends what a moving tree left inconsistent:
// a znode whose parent went is left out.
func (t *tree) complete(s *session) error {
	if len(t.denied) > 0 {
		return fmt.Errorf("%s: %d znodes cannot be read: %s: %w: give the super user's credentials in auth_file", s.target, len(t.denied), some(t.denied), plugins.ErrAuth)
	}
	for _, n := range t.sorted() {
		parent := path.Dir(n.path)
		if n.path != "/" && t.nodes[parent] == nil && !owned(parent) || n.acl == unknownACL {
			delete(t.nodes, n.path)
		}
	}
	return nil
}
