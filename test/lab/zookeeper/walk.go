package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"
)

// readers is how many requests a walk has under way.
const readers = 64

// seen is a znode as a client sees it.
type seen struct {
	path     string
	data     []byte
	acl      []zk.ACL
	stat     *zk.Stat
	children []string
}

// reader gets one znode, and its children's names.
type reader func(c *zk.Conn, path string) (seen, error)

// walk visits every znode below root, root included, spread over the given
// connections to one server; visit is called by one goroutine at a time. Nodes
// that vanish meanwhile are left out.
func walk(ctx context.Context, conns []*zk.Conn, root string, read reader, visit func(seen)) error {
	g, ctx := errgroup.WithContext(ctx)
	q := &pathQueue{paths: []string{root}}
	q.wake = sync.NewCond(&q.mu)
	stop := context.AfterFunc(ctx, q.close)
	defer stop()
	for i := range readers {
		c := conns[i%len(conns)]
		g.Go(func() error {
			for p, ok := q.next(); ok; p, ok = q.next() {
				s, err := read(c, p)
				if err != nil && !errors.Is(err, zk.ErrNoNode) {
					return fmt.Errorf("read %s: %w", p, err)
				}
				q.done(func() []string {
					if err != nil || excluded(p) {
						return nil
					}
					visit(s)
					for i, child := range s.children {
						s.children[i] = path.Join(p, child)
					}
					return s.children
				})
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// pathQueue hands out paths until none are left and nobody can add any.
type pathQueue struct {
	mu     sync.Mutex
	wake   *sync.Cond
	paths  []string
	busy   int
	closed bool
}

func (q *pathQueue) next() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.paths) == 0 && q.busy > 0 && !q.closed {
		q.wake.Wait()
	}
	if len(q.paths) == 0 || q.closed {
		return "", false
	}
	p := q.paths[len(q.paths)-1] // the last one: depth first keeps the queue short
	q.paths = q.paths[:len(q.paths)-1]
	q.busy++
	return p, true
}

// done ends the work on one path; more gives the paths that follow from it.
func (q *pathQueue) done(more func() []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.paths = append(q.paths, more()...)
	q.busy--
	q.wake.Broadcast()
}

func (q *pathQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Broadcast()
}

// excluded: the product's own nodes, and what the server keeps for itself.
func excluded(p string) bool {
	return p == bookkeeping || p == "/zookeeper/config"
}

// readAll gets all that a client can see of a znode.
func readAll(c *zk.Conn, p string) (s seen, err error) {
	s.path = p
	if s.data, s.stat, err = c.Get(p); err != nil {
		return s, err
	}
	if s.acl, _, err = c.GetACL(p); err != nil {
		return s, err
	}
	if s.stat.NumChildren > 0 {
		s.children, _, err = c.Children(p)
	}
	return s, err
}

// readNames gets the children only.
func readNames(c *zk.Conn, p string) (s seen, err error) {
	s.path = p
	s.children, s.stat, err = c.Children(p)
	return s, err
}
