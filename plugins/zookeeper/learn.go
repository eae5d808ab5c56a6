package zookeeper

import (
	"context"
	"path/filepath"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkfile"
)

// learn takes types and access lists from the files of a server on this VM.
// Path and czxid name one znode for ever, and with its aversion one access
// list, so what is taken over is exact however old or new the files are. Types are known if
// every znode was found.
func (s *session) learn(ctx context.Context, t *tree) {
	snaps, logs := s.files()
	if snaps == "" {
		return
	}
	for try := 0; ; try++ {
		last, err := zkfile.Read(snaps, logs, func(n zkfile.Node) error {
			if x := t.nodes[n.Path]; x != nil && x.stat.czxid == n.Czxid {
				x.learnt(n.Owner)
				if x.acl == unknownACL && x.stat.aversion == n.Aversion {
					x.acl = t.acls.add(n.ACL)
				}
			}
			return ctx.Err()
		}, func(e zkfile.Event) error {
			x := t.nodes[e.Path]
			switch {
			case x == nil:
			case e.Create && x.stat.czxid == e.Zxid:
				x.learnt(e.Owner)
				if x.acl == unknownACL && x.stat.aversion == 0 {
					x.acl = t.acls.add(e.ACL)
				}
			case !e.Create && x.acl == unknownACL && e.Zxid > x.stat.czxid && x.stat.aversion == e.Aversion:
				x.acl = t.acls.add(e.ACL)
			}
			return ctx.Err()
		})
		newest := int64(0) // of the znodes that were not found
		t.kindsKnown = err == nil
		for _, n := range t.nodes {
			if !n.typed {
				t.kindsKnown = false
				newest = max(newest, n.stat.czxid)
			}
		}
		// A follower may apply a transaction a moment before it has it in its log.
		if t.kindsKnown || err != nil || newest <= last || try == 20 {
			return
		}
		if plugins.Sleep(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

func (n *node) learnt(owner int64) {
	n.typed = true
	if n.kind = kind(zkfile.TTL(owner)); zkfile.Container(owner) {
		n.kind = container
	}
}

// files are the directories of snapshots and logs of a server on this VM; empty when none is named.
func (s *session) files() (snaps, logs string) {
	for _, m := range s.members {
		if m.VM == s.members[0].VM && m.Options["data_dir"] != "" {
			return directories(m)
		}
	}
	return "", ""
}

func directories(m plugins.Member) (snaps, logs string) {
	snaps = filepath.Join(m.Options["data_dir"], "version-2")
	if d := m.Options["data_log_dir"]; d != "" {
		return snaps, filepath.Join(d, "version-2")
	}
	return snaps, snaps
}
