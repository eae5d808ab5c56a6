package zookeeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	treeName  = "tree"  // path → access list and data
	statsName = "stats" // path → numbers the server keeps, see statsRecord
	kindsName = "types" // path → container or TTL, for those only
	knownAttr = "types" // attribute of the artifact types: "known" or "unknown"
)

type pin struct {
	s       *session
	info    plugins.PinInfo
	tree    *tree
	nodes   []*node
	version string
}

// Pin reads the whole tree and holds it.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	return s.pin(ctx, run)
}

func (s *session) pin(ctx context.Context, run plugins.Run) (*pin, error) {
	t, err := s.walk(ctx, run.Scratch, walkOptions{acls: true, quiet: true, files: true, each: func(n int64) {
		run.Report(plugins.Status{Phase: "pin", Bytes: n})
	}})
	if err != nil {
		return nil, err
	}
	if err := t.complete(s); err != nil {
		return nil, errors.Join(err, t.spool.Close())
	}
	info := plugins.PinInfo{ID: rand.Text(), At: time.Now(), Position: position(t.zxid)}
	return &pin{s: s, info: info, tree: t, nodes: t.sorted(), version: s.version(ctx)}, nil
}

func position(zxid int64) string { return fmt.Sprintf("0x%x", uint64(zxid)) }

func (p *pin) Info() plugins.PinInfo { return p.info }

// Release forgets what was read.
func (p *pin) Release(context.Context) error { return p.tree.spool.Close() }

// Backup writes the artifacts.
func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: p.version, Position: p.info.Position, Consistency: "one moment: the tree as it stood at zxid " + p.info.Position}
	t := p.tree
	if !t.quiet {
		rep.Consistency = fmt.Sprintf("every znode whole, but the tree moved during all of %d readings, up to zxid %s", t.passes, p.info.Position)
		rep.Warnings = append(rep.Warnings, "kept changing while being read: "+some(t.busy))
	}
	if n := len(t.ephemerals); n > 0 {
		rep.Inexact = append(rep.Inexact, plugins.Inexact{What: fmt.Sprintf("%d ephemeral znodes", n),
			Why: "they belong to running sessions and are not part of the backup"})
	}
	if !t.kindsKnown {
		rep.Inexact = append(rep.Inexact, plugins.Inexact{What: "container and TTL znodes come back as ordinary ones",
			Why: "clients cannot see the type; it is learnt from the server's files when the member option data_dir names them and they can be read"})
	}
	var total int64
	for _, n := range p.nodes {
		total += int64(len(n.path)+len(t.acls.text[n.acl])+n.data.Len()) + 2
	}
	put := func(a plugins.Artifact, value func(b []byte, n *node) ([]byte, error)) error {
		a.Form, a.Pin = plugins.Ordered, p.info.ID
		rw, err := w.Create(ctx, a)
		if err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		defer rw.Abort()
		var b []byte
		for i, n := range p.nodes {
			if b, err = value(b[:0], n); err != nil {
				return err
			}
			if len(b) == 0 {
				continue
			}
			if err := rw.Put([]byte(n.path), b); err != nil {
				return fmt.Errorf("artifact %s: %w", a.Name, err)
			}
			rep.Records++
			rep.Bytes += int64(len(n.path) + len(b))
			if i%256 == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				run.Report(plugins.Status{Phase: "copy", Item: a.Name, Bytes: rep.Bytes, Total: total})
			}
		}
		if err := rw.Commit(); err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
		rep.Artifacts++
		return nil
	}
	var buf []byte
	err := put(plugins.Artifact{Name: treeName}, func(b []byte, n *node) ([]byte, error) {
		data, err := t.spool.Get(n.data, &buf)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, plugins.ErrPinLost)
		}
		return appendRecord(b, n.path, t.acls.text[n.acl], n.null, data), nil
	})
	if err != nil {
		return rep, err
	}
	known := map[string]string{knownAttr: "unknown"}
	if t.kindsKnown {
		known[knownAttr] = "known"
	}
	err = put(plugins.Artifact{Name: kindsName, Volatile: true, Attributes: known}, func(b []byte, n *node) ([]byte, error) {
		return append(b, n.kind.encode()...), nil
	})
	if err != nil {
		return rep, err
	}
	return rep, put(plugins.Artifact{Name: statsName, Volatile: true}, func(b []byte, n *node) ([]byte, error) {
		return n.stat.append(b), nil
	})
}

// statsRecord is what the server keeps of a znode beside data, access list and type.

type statsRecord struct {
	czxid, mzxid, pzxid int64
	ctime, mtime        int64 // ms since 1970
	version, aversion   int32
	creates             uint32 // children ever created: the next sequence number
}

func (r statsRecord) append(b []byte) []byte {
	return fmt.Appendf(b, "%d %d %d %d %d %d %d %d", r.czxid, r.mzxid, r.pzxid, r.ctime, r.mtime, r.version, r.aversion, r.creates)
}

func parseStats(b []byte) (r statsRecord, err error) {
	_, err = fmt.Sscanf(string(b), "%d %d %d %d %d %d %d %d", &r.czxid, &r.mzxid, &r.pzxid, &r.ctime, &r.mtime, &r.version, &r.aversion, &r.creates)
	return r, err
}

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := s.pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	return rep, errors.Join(err, p.Release(ctx))
}

// Digest reads the live tree.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	d := plugins.NewDigester()
	if _, err := s.Backup(ctx, run, d); err != nil {
		return nil, err
	}
	return d.Digests(), nil
}

func statsOf(s zkwire.Stat) statsRecord {
	return statsRecord{s.Czxid, s.Mzxid, s.Pzxid, s.Ctime, s.Mtime, s.Version, s.Aversion, s.Creates()}
}
