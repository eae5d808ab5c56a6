package zookeeper

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// The ACLs of the fill: every scheme that a server without Kerberos and TLS accepts.
var (
	open     = zk.WorldACL(zk.PermAll)
	readOnly = zk.WorldACL(zk.PermRead)
	private  = zk.DigestACL(zk.PermAll, "cso", "cso-secret")
	shared   = append(zk.DigestACL(zk.PermRead|zk.PermWrite, "reader", "r-secret"), zk.ACL{Perms: zk.PermAll, Scheme: "ip", ID: "127.0.0.1"})
	network  = []zk.ACL{{Perms: zk.PermAll, Scheme: "ip", ID: "127.0.0.0/8"}, {Perms: zk.PermRead, Scheme: "world", ID: "anyone"}}
	many     = append(append(zk.DigestACL(zk.PermAdmin, "a", "1"), zk.DigestACL(zk.PermDelete, "b", "2")...), zk.ACL{Perms: zk.PermCreate | zk.PermRead, Scheme: "world", ID: "anyone"})
)

// Largest is the size of the largest znode of a fill: what fits into a packet
// of the server's default limit (1,048,575 bytes) beside path and ACL.
const Largest = 1_040_000

// The nodes of a kind that no client can see after their creation, and the
// parents of sequential nodes.
const (
	containers = "/cso/containers"
	ttls       = "/cso/ttl"
	queues     = "/cso/queues"
	ttl        = 30 * 24 * time.Hour
)

// Fill replaces the whole tree, the server's own nodes excepted.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	conns, err := dialSome(ctx, members[0])
	defer closeAll(conns)
	if err != nil {
		return err
	}
	c := conns[0]
	if err := empty(ctx, conns); err != nil {
		return fmt.Errorf("empty the server: %w", err)
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0x200))
	nodes := makeTree(r, size)
	if err := create(ctx, c, nodes); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return fillRoot(c) },
		func() error { return fillKinds(c) },
		func() error { return fillSequences(c) },
		func() error { return fillAuth(ctx, members[0]) },
		func() error {
			return leaveBehind(ctx, members[0], 24*time.Hour, "/cso/live/worker-1", "/cso/live/worker-2")
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	// Versions above zero, as a used server has them.
	for i := 0; i < len(nodes); i += 199 {
		if _, err := c.Set(nodes[i].path, nodes[i].data, -1); err != nil {
			return fmt.Errorf("write %s again: %w", nodes[i].path, err)
		}
	}
	return nil
}

// empty removes everything but the server's and the product's own nodes.
func empty(ctx context.Context, conns []*zk.Conn) error {
	c := conns[0]
	paths, err := list(ctx, conns, "/")
	if err != nil {
		return err
	}
	if err := remove(ctx, c, paths); err != nil {
		return err
	}
	if _, err := c.Set("/", nil, -1); err != nil {
		return fmt.Errorf("clear the root's data: %w", err)
	}
	if _, err := c.SetACL("/", open, -1); err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	return nil
}

// list gives all paths below root that are neither the server's nor the product's; quotas are listed.
func list(ctx context.Context, conns []*zk.Conn, root string) ([]string, error) {
	var paths []string
	err := walk(ctx, conns, root, readNames, func(s seen) {
		if s.path != "/" && s.path != "/zookeeper" && s.path != "/zookeeper/quota" {
			paths = append(paths, s.path)
		}
	})
	return paths, err
}

// makeTree gives equal nodes for equal seeds, parents before children.
func makeTree(r *rand.Rand, size string) []node {
	topics, partitions, wide := 20, 8, 3000
	if size == "large" {
		topics, partitions, wide = 2500, 24, 30000
	}
	var ns []node
	add := func(path string, data []byte, acl []zk.ACL) { ns = append(ns, node{path, data, acl}) }
	text := func(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }
	for _, p := range []string{"/cso", containers, ttls, queues, "/cso/live", "/brokers", "/brokers/topics", "/config", "/config/topics", "/contrail", "/contrail/id", "/awkward", "/acl"} {
		add(p, nil, open)
	}
	add("/controller_epoch", text("%d", r.IntN(50)), open)
	add("/controller", text(`{"version":1,"brokerid":%d,"timestamp":"%d"}`, r.IntN(3), r.Int64N(1<<40)), readOnly)
	for i := range topics {
		t := fmt.Sprintf("csp.topic.%05d", i)
		// An inner node with data, as Kafka has them.
		add("/brokers/topics/"+t, text(`{"version":2,"partitions":{"0":[%d]},"topic_id":"%016x"}`, r.IntN(3), r.Uint64()), open)
		add("/brokers/topics/"+t+"/partitions", nil, open)
		add("/config/topics/"+t, text(`{"version":1,"config":{"retention.ms":"%d"}}`, r.Int64N(1e9)), open)
		for p := range partitions {
			base := fmt.Sprintf("/brokers/topics/%s/partitions/%d", t, p)
			add(base, nil, open)
			add(base+"/state", text(`{"controller_epoch":%d,"leader":%d,"version":1,"leader_epoch":%d,"isr":[0,1,2]}`, r.IntN(50), r.IntN(3), r.IntN(99)), open)
			add(base+"/log", []byte{}, open)
		}
	}
	for i := range wide {
		add(fmt.Sprintf("/contrail/id/vn-%06d", i), text("default-domain:project-%d:network-%08x", r.IntN(100), r.Uint32()), open)
	}
	deep := "/awkward/deep"
	add(deep, text("top"), open)
	for i := range 80 {
		deep += fmt.Sprintf("/level%d", i)
		add(deep, randomBytes(r, r.IntN(40)), open)
	}
	add("/awkward/null", nil, open)
	add("/awkward/empty", []byte{}, open)
	add("/awkward/one-zero", []byte{0}, open)
	add("/awkward/largest", randomBytes(r, Largest), open)
	add("/awkward/inner", randomBytes(r, 300_000), private)
	add("/awkward/inner/leaf", []byte{}, private)
	add("/awkward/inner/largest-below", randomBytes(r, Largest), open)
	add("/awkward/binary", randomBytes(r, 2048), open)
	for _, name := range []string{"ünïcode-数据-ключ", "two words", "...", "dot.ted", "100%", "quote\"'`", "back\\slash", "{json:1}", "zookeeper", "-", "\u00a0nbsp", "e\u0301", "é", strings.Repeat("long", 60)} {
		add("/awkward/"+name, text("%s", name), open)
		add("/awkward/"+name+"/child", nil, open)
	}
	add("/acl/read-only", text("r"), readOnly)
	add("/acl/private", text("p"), private)
	add("/acl/private/open-below", text("o"), open)
	add("/acl/shared", text("s"), shared)
	add("/acl/network", text("n"), network)
	add("/acl/many", nil, many)
	for i := range 30 {
		add(fmt.Sprintf("/acl/user-%02d", i), nil, zk.DigestACL(int32(1+r.IntN(31)), fmt.Sprintf("u%d", i), fmt.Sprint(r.Uint32())))
	}
	// Quotas: the limits are data, the statistics beside them are the server's.
	add("/zookeeper/quota/contrail", nil, open)
	add("/zookeeper/quota/contrail/id", nil, open)
	add("/zookeeper/quota/contrail/id/zookeeper_limits", text("count=%d,bytes=-1", 100000+r.IntN(1000)), open)
	add("/zookeeper/quota/contrail/id/zookeeper_stats", text("count=0,bytes=0"), open)
	return ns
}

func fillRoot(c *zk.Conn) error {
	if _, err := c.Set("/", []byte("cso root"), -1); err != nil {
		return fmt.Errorf("write the root: %w", err)
	}
	return nil
}

// fillKinds makes container and TTL nodes. A container that never had a child
// is not reaped by a 3.8 server; one that had loses its last child to reaping.
func fillKinds(c *zk.Conn) error {
	for _, n := range []node{{containers + "/locks", []byte("with data"), open}, {containers + "/never-used", nil, open}, {containers + "/locks/inner", []byte{}, private}} {
		if _, err := c.CreateContainer(n.path, n.data, zk.FlagContainer, n.acl); err != nil {
			return fmt.Errorf("create the container %s: %w", n.path, err)
		}
	}
	for _, p := range []string{containers + "/locks/a", containers + "/locks/inner/b"} {
		if _, err := c.Create(p, nil, zk.FlagPersistent, open); err != nil {
			return fmt.Errorf("create %s: %w", p, err)
		}
	}
	for i, acl := range [][]zk.ACL{open, private, network} {
		p := fmt.Sprintf("%s/month-%d", ttls, i)
		if _, err := c.CreateTTL(p, fmt.Appendf(nil, "ttl %d", i), zk.FlagTTL, acl, ttl+time.Duration(i)*time.Hour); err != nil {
			return fmt.Errorf("create the TTL node %s: %w", p, err)
		}
	}
	return nil
}

// fillSequences makes parents whose counter is above what their children show:
// numbers in the middle and at the end are deleted again.
func fillSequences(c *zk.Conn) error {
	for _, q := range []struct {
		name, prefix    string
		creates         int
		deleted         []int
		withPlainSister bool
	}{
		{"orders", "order-", 12, []int{0, 3, 4, 10, 11}, false},
		{"locks", "lock-", 5, []int{1}, true},
		{"emptied", "n-", 3, []int{0, 1, 2}, false},
		{"nameless", "", 4, nil, false},
		{"kept", "job_", 30, []int{29}, true},
	} {
		parent := queues + "/" + q.name
		if _, err := c.Create(parent, []byte(q.name), zk.FlagPersistent, open); err != nil {
			return fmt.Errorf("create %s: %w", parent, err)
		}
		if q.withPlainSister {
			if _, err := c.Create(parent+"/readme", nil, zk.FlagPersistent, open); err != nil {
				return fmt.Errorf("create %s/readme: %w", parent, err)
			}
		}
		var made []string
		for n := range q.creates {
			p, err := c.Create(parent+"/"+q.prefix, fmt.Appendf(nil, "%s %d", q.name, n), zk.FlagSequence, open)
			if err != nil {
				return fmt.Errorf("create in sequence below %s: %w", parent, err)
			}
			made = append(made, p)
		}
		for _, n := range q.deleted {
			if err := c.Delete(made[n], -1); err != nil {
				return fmt.Errorf("delete %s: %w", made[n], err)
			}
		}
	}
	return nil
}

// fillAuth makes a node with the scheme "auth", which the server replaces by
// the creator's own identity, so the creator must not be the super user.
func fillAuth(ctx context.Context, m engine.Member) error {
	c, err := session(ctx, m, sessionTimeout, net.DialTimeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.AddAuth("digest", []byte("creator:c-secret")); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	if _, err := c.Create("/acl/of-creator", []byte("a"), zk.FlagPersistent, zk.AuthACL(zk.PermAll)); err != nil {
		return fmt.Errorf("create /acl/of-creator: %w", err)
	}
	return nil
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
