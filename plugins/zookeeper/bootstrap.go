package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkfile"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	marker = "cso-backup-bootstrap" // in version-2: the epoch of the run that made it
	// epochJump keeps the new transaction numbers above all old ones, also above
	// those of elections after the backup: clients refuse servers that are behind what they have seen.
	epochJump = 256
	startTime = time.Minute
)

// Bootstrap gives one member a snapshot made from the backup, with every
// number of every znode as it was, and starts it. What the member held is
// moved aside, to version-2.before-EPOCH. All members get the same tree, so whichever leads, all
// agree.
func (p *Plugin) Bootstrap(ctx context.Context, t plugins.Target, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{Consistency: "the same snapshot on every member"}
	s, err := newSession(t)
	if err != nil {
		return rep, err
	}
	m := s.members[0]
	fail := func(err error) (plugins.Report, error) {
		return rep, fmt.Errorf("%s on %s: %w", t, m.Name, err)
	}
	if m.Options["data_dir"] == "" || m.Options["control_program"] == "" {
		return fail(fmt.Errorf("disaster recovery needs data_dir and control_program in the estate file: %w", plugins.ErrConfig))
	}
	snaps, logs := directories(m)
	done, err := os.ReadFile(filepath.Join(snaps, marker))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fail(err)
	}
	if string(done) != fmt.Sprint(run.Epoch) {
		b, err := loadBackup(ctx, r, run.Scratch)
		if err != nil {
			return fail(err)
		}
		defer b.spool.Close()
		if err := control(ctx, m, "stop"); err != nil {
			return fail(err)
		}
		rep.Records = int64(len(b.nodes))
		rep.Artifacts = 3
		if err := b.install(snaps, logs, run.Epoch, &rep); err != nil {
			return fail(err)
		}
	}
	if err := control(ctx, m, "start"); err != nil {
		return fail(err)
	}
	return rep, s.await(ctx, m)
}

// control runs the program that starts and stops a server.
func control(ctx context.Context, m plugins.Member, what string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.Options["control_program"], what, m.Name)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s %s: %w: %s", m.Options["control_program"], what, m.Name, err, bytes.TrimSpace(out[:min(len(out), 1000)]))
	}
	return nil
}

// await waits until the server's process answers. Whether the ensemble serves depends on its other members too.
func (s *session) await(ctx context.Context, m plugins.Member) error {
	deadline := time.Now().Add(startTime)
	for {
		_, err := s.status(ctx, m)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s on %s does not answer after its start: read the server's log: %w: %w", s.target, m.Name, plugins.ErrUnavailable, err)
		}
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// stored is a whole backup, checked, data in the spool.
type stored struct {
	nodes []wanted
	stats map[string]statsRecord
	acls  *aclTable
	spool *spool.Spool
	zxid  int64 // highest in the backup
}

func loadBackup(ctx context.Context, r plugins.ArtifactReader, scratch string) (*stored, error) {
	// An empty tree differs from the backup in everything: comparing with it reads and checks all.
	b := &stored{spool: spool.New(scratch, memoryBound), stats: map[string]statsRecord{}}
	none := &tree{nodes: map[string]*node{}, ephemerals: map[string]zkwire.Stat{}, acls: newACLTable(), kindsKnown: true}
	d, err := new(session).compare(ctx, r, none, b.spool)
	if err == nil {
		b.nodes, b.acls = d.add, none.acls
		err = each(ctx, r, statsName, func(k, v []byte) error {
			st, err := parseStats(v)
			b.stats[string(k)] = st
			b.zxid = max(b.zxid, st.czxid, st.mzxid, st.pzxid)
			return err
		})
	}
	if err != nil {
		b.spool.Close()
		return nil, err
	}
	return b, nil
}

// install writes the snapshot beside version-2 and puts it in its place.
func (b *stored) install(snaps, logs string, epoch uint64, rep *plugins.Report) error {
	highest := b.zxid >> 32
	for _, dir := range []string{snaps, logs} {
		highest = max(highest, localEpoch(dir))
	}
	zxid := (highest + epochJump) << 32
	next := snaps + ".cso-backup-new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := os.MkdirAll(next, 0o750); err != nil {
		return err
	}
	if err := b.snapshot(next, zxid, rep); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(next, marker), fmt.Append(nil, epoch), 0o600); err != nil {
		return err
	}
	if err := owner(next, filepath.Dir(snaps)); err != nil {
		return err
	}
	for _, dir := range slices.Compact([]string{snaps, logs}) {
		before := fmt.Sprintf("%s.before-%d", dir, epoch)
		if _, err := os.Lstat(before); err == nil {
			continue // an earlier attempt moved it
		}
		if err := os.Rename(dir, before); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		} else if err == nil {
			rep.Warnings = append(rep.Warnings, "what the server held was moved to "+before+": remove it when the recovery has proved good")
		}
	}
	if err := os.RemoveAll(snaps); err != nil { // of an attempt that was killed between the two renames
		return err
	}
	if err := os.Rename(next, snaps); err != nil {
		return err
	}
	rep.Position = position(zxid)
	return syncDir(filepath.Dir(snaps))
}

// snapshot writes the tree of the backup and the znodes every server has.
func (b *stored) snapshot(dir string, zxid int64, rep *plugins.Report) error {
	world := []zkwire.ACL{{Perms: 31, Scheme: "world", ID: "anyone"}}
	read := []zkwire.ACL{{Perms: 1, Scheme: "world", ID: "anyone"}}
	fixed := map[string][]zkwire.ACL{zkRoot: world, quotaPath: world, configPath: read}
	all := slices.Clone(b.nodes)
	for p := range fixed {
		all = append(all, wanted{path: p})
	}
	slices.SortFunc(all, func(a, b wanted) int { return strings.Compare(a.path, b.path) })
	lists := append(slices.Clone(b.acls.list), world, read)
	var buf []byte
	return zkfile.WriteSnapshot(dir, zxid, func(put func(zkfile.Node) error) error {
		for _, w := range all {
			n := zkfile.Node{Path: w.path, Data: []byte{}, ACL: fixed[w.path], Cversion: -1}
			if n.ACL == nil {
				st := b.stats[w.path]
				data, err := b.spool.Get(w.data, &buf)
				if err != nil {
					return err
				}
				n = zkfile.Node{Path: w.path, Data: data, ACL: b.acls.list[w.acl], Owner: zkfile.Owner(w.kind == container, max(0, int64(w.kind))),
					Czxid: st.czxid, Mzxid: st.mzxid, Pzxid: st.pzxid, Ctime: st.ctime, Mtime: st.mtime,
					Version: st.version, Aversion: st.aversion, Cversion: int32(st.creates)}
				switch {
				case masked(w.path):
					n.Data = []byte("count=0,bytes=0")
				case w.null:
					n.Data = nil
				case data == nil:
					n.Data = []byte{}
				}
				rep.Bytes += int64(len(w.path) + len(data))
			}
			if err := put(n); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
		}
		return nil
	}, lists)
}

// localEpoch is the highest epoch the files of a server speak of; 0 when there are none.
func localEpoch(dir string) int64 {
	var highest int64
	for _, name := range []string{"currentEpoch", "acceptedEpoch"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 32); err == nil {
				highest = max(highest, n)
			}
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil {
		return highest
	}
	for _, n := range names {
		if z, err := strconv.ParseUint(strings.TrimPrefix(path.Ext(n), "."), 16, 63); err == nil {
			highest = max(highest, int64(z>>32))
		}
	}
	return highest
}

// owner gives the new files the owner of the directory they go into: the server's account.
func owner(dir, like string) error {
	fi, err := os.Stat(like)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(st.Uid), int(st.Gid))
	})
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
