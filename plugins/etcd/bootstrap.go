package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// revisionBump raises the revision of a recovered cluster above all that clients
// of the lost one can have seen, so that their watches end with "compacted"
// instead of silently missing events. A billion is the figure etcd's documentation proposes.
const revisionBump = 1_000_000_000

// Bootstrap makes this member's data directory anew from the stored snapshot and starts the server.
//
// The product's own keys and epoch leases and all alarms are taken out of the
// database file before a server ever opens it: there is no moment at which a
// client could read a maintenance switch of the past. The old data directory is kept as
// <data_dir>.before-<epoch>. All members get the same rows, so that their hashes agree.
func (p *Plugin) Bootstrap(ctx context.Context, t plugins.Target, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{Consistency: "one snapshot of the whole cluster at one revision"}
	b, err := newBootstrap(t, run)
	if err == nil {
		err = b.run(ctx, r, &rep)
	}
	if err != nil {
		return rep, fmt.Errorf("disaster recovery of %s, member %s: %w", t, t.Member, err)
	}
	return rep, nil
}

type bootstrap struct {
	cfg     *config
	r       plugins.Run
	name    string // of the member
	dir     string // data directory
	cluster string // initial cluster: name=peer_url,…
	peer    string
	control control
}

func newBootstrap(t plugins.Target, run plugins.Run) (*bootstrap, error) {
	cfg, err := newConfig(t)
	if err != nil {
		return nil, err
	}
	b := &bootstrap{cfg: cfg, r: run}
	var peers []string
	for _, m := range t.Members {
		name := m.Name
		if m.Options["name"] != "" {
			name = m.Options["name"]
		}
		for _, o := range []string{"data_dir", "peer_url", "control_program"} {
			if m.Options[o] == "" {
				return nil, fmt.Errorf("option %s of member %s is missing in the estate file: %w", o, m.Name, plugins.ErrConfig)
			}
		}
		if m.Name == cfg.self.Name {
			b.name, b.dir, b.peer = name, filepath.Clean(m.Options["data_dir"]), m.Options["peer_url"]
			b.control = control{m.Options["control_program"], m.Name}
		}
		peers = append(peers, name+"="+m.Options["peer_url"])
	}
	b.cluster = strings.Join(peers, ",")
	return b, nil
}

// run is safe to repeat: each step sees whether it was done before.
func (b *bootstrap) run(ctx context.Context, r plugins.ArtifactReader, rep *plugins.Report) error {
	done := filepath.Join(b.r.Scratch, "etcd-recovered-"+b.name)
	if _, err := os.Stat(done); errors.Is(err, fs.ErrNotExist) {
		file := filepath.Join(b.r.Scratch, "etcd-recover-"+b.name+".db")
		if err := b.fetch(ctx, r, file, rep); err != nil {
			return err
		}
		if err := b.control.run(ctx, "stop"); err != nil {
			return err
		}
		if err := b.exchange(ctx, file); err != nil {
			return err
		}
		if err := os.WriteFile(done, nil, 0o600); err != nil {
			return err
		}
		rep.Artifacts = 1
	} else if err != nil {
		return err
	}
	if err := b.control.run(ctx, "start"); err != nil {
		return err
	}
	return b.await(ctx, rep)
}

// fetch writes the stored snapshot to a file, verifies its checksum, and cleans it.
func (b *bootstrap) fetch(ctx context.Context, r plugins.ArtifactReader, file string, rep *plugins.Report) error {
	in, err := r.Open(ctx, artSnapshot)
	if err != nil {
		return fmt.Errorf("artifact %q: %w", artSnapshot, err)
	}
	defer in.Close()
	out, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	var sum trailer
	buf := make([]byte, 1<<20)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			sum.write(buf[:n])
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			rep.Bytes += int64(n)
			b.r.Report(plugins.Status{Phase: "load", Item: artSnapshot, Bytes: rep.Bytes})
		}
		if err == io.EOF {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("artifact %q: %w", artSnapshot, err)
		}
	}
	if err := sum.check(); err != nil {
		return fmt.Errorf("artifact %q: %w: %w", artSnapshot, plugins.ErrCorrupt, err)
	}
	// The checksum was right and is about to be wrong, because rows are taken out.
	if err := errors.Join(out.Truncate(rep.Bytes-int64(len(sum.tail))), out.Close()); err != nil {
		return err
	}
	rep.Records, err = clean(ctx, b.cfg, file)
	return err
}

// exchange builds the new data directory beside the old one and swaps them by two renames.
func (b *bootstrap) exchange(ctx context.Context, file string) error {
	fresh, before := fmt.Sprintf("%s.new-%d", b.dir, b.r.Epoch), fmt.Sprintf("%s.before-%d", b.dir, b.r.Epoch)
	kept := true
	if _, err := os.Lstat(before); errors.Is(err, fs.ErrNotExist) {
		kept = false
	} else if err != nil {
		return err
	}
	if kept {
		// An earlier attempt got as far as the swap. If there is a data directory, it is the new one,
		// or one that a server made since: the truth about the past is safe in before.
		if err := os.RemoveAll(b.dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: b.name, OutputDataDir: fresh, PeerURLs: []string{b.peer}, InitialCluster: b.cluster,
		InitialClusterToken: fmt.Sprintf("cso-%s-%d", b.cfg.target.Instance, b.r.Epoch),
		SkipHashCheck:       true, RevisionBump: revisionBump, MarkCompacted: true,
	})
	if err = errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("build the data directory: %w", err)
	}
	if err := sameOwner(b.dir, fresh, before); err != nil {
		return err
	}
	if !kept {
		if err := os.Rename(b.dir, before); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep the old data directory: %w", err)
		}
	}
	if err := os.Rename(fresh, b.dir); err != nil {
		return fmt.Errorf("put the new data directory in place: %w", err)
	}
	b.r.Log.Info("data directory made anew", slog.String("member", b.name), slog.String("kept", before))
	return os.Remove(file)
}

// await waits until the server answers. A member of a cluster cannot answer
// before most members have been recovered: for it, a running process is enough.
func (b *bootstrap) await(ctx context.Context, rep *plugins.Report) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		var err error
		if len(b.cfg.endpoints) > 1 {
			err = b.control.run(ctx, "status")
		} else {
			err = b.ask(ctx, rep)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not come up: %w: look at its log", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (b *bootstrap) ask(ctx context.Context, rep *plugins.Report) error {
	c, err := b.cfg.dial(ctx, b.cfg.endpoints[0])
	if err != nil {
		return err
	}
	defer c.Close()
	st, err := c.Status(ctx, b.cfg.endpoints[0])
	if err == nil && st.Leader == 0 {
		err = fmt.Errorf("no leader yet: %w", plugins.ErrUnavailable)
	}
	if err == nil {
		rep.ServerVersion = st.Version
		rep.Position = position(st.Header.Revision, st.Header.ClusterId)
	}
	return err
}
