package zookeeper

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

// known remembers access lists by a hash of path, czxid and aversion, which together name one list for ever.
type known struct {
	seed  maphash.Seed
	lists map[uint64]int32
	table *aclTable
}

func (k *known) key(n *node) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	h.WriteString(n.path)
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], uint64(n.stat.czxid))
	binary.BigEndian.PutUint32(b[8:], uint32(n.stat.aversion))
	h.Write(b[:])
	return h.Sum64()
}

// remember keeps what a reading found out.
func (t *tree) remember() *known {
	k := &known{seed: maphash.MakeSeed(), lists: make(map[uint64]int32, len(t.nodes)), table: t.acls}
	for _, n := range t.nodes {
		if n.acl != unknownACL {
			k.lists[k.key(n)] = n.acl
		}
	}
	return k
}

func (w *walker) takeOver(k *known) {
	for _, n := range w.t.nodes {
		if n.acl == unknownACL {
			if i, ok := k.lists[k.key(n)]; ok {
				n.acl = w.t.acls.put(k.table.text[i], k.table.list[i])
			}
		}
	}
}

// readACLs asks for the access lists that are not known yet; there is no bulk request for them.
func (w *walker) readACLs(ctx context.Context) error {
	var todo []*node
	for _, n := range w.t.nodes {
		if n.acl == unknownACL {
			todo = append(todo, n)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range w.conns {
		part := todo[i*len(todo)/len(w.conns) : (i+1)*len(todo)/len(w.conns)]
		g.Go(func() error {
			sent, got := 0, 0
			return c.Stream(ctx, 200, func() (zkwire.Request, bool, error) {
				if sent == len(part) {
					return zkwire.Request{}, false, nil
				}
				sent++
				return zkwire.GetACL(part[sent-1].path), true, nil
			}, func(r zkwire.Reply) error {
				n := part[got]
				got++
				return w.gotACL(n, r)
			})
		})
	}
	return g.Wait()
}

func (w *walker) gotACL(n *node, r zkwire.Reply) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.zxid = max(w.t.zxid, r.Zxid)
	w.still = w.still && r.Zxid == w.start
	if r.Code == zkwire.NoNode {
		w.moved = append(w.moved, n.path)
		delete(w.t.nodes, n.path)
		return nil
	}
	if r.Code != zkwire.OK {
		return w.s.fault(n.path, r.Code)
	}
	d := zkwire.Decoder{B: r.Body}
	list, st := d.ACLs(), d.Stat()
	if d.Err != nil {
		return fmt.Errorf("%s: access list: %w", n.path, d.Err)
	}
	if st.Czxid != n.stat.czxid {
		w.moved = append(w.moved, n.path)
		delete(w.t.nodes, n.path) // another znode of the same name
		return nil
	}
	if st.Aversion != n.stat.aversion {
		w.moved = append(w.moved, n.path)
		n.stat.aversion = st.Aversion
	}
	n.acl = w.t.acls.add(list)
	return nil
}
