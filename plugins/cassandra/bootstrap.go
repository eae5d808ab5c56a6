package cassandra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

var _ plugins.Bootstrapper = (*Plugin)(nil)

// How long the control program may take, and a freshly installed ring until all its nodes see each other.
const (
	controlTimeout = 2 * time.Minute
	ringTimeout    = 5 * time.Minute
)

// Bootstrap fills one freshly installed node: it starts the server if option control_program says how, waits until
// the whole ring is up, and restores, together with the other members. The tokens may be others than those of
// the backup. The estate file's user must exist; accounts are restored later, as after any restore.
func (p *Plugin) Bootstrap(ctx context.Context, t plugins.Target, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := p.bootstrap(ctx, t, run, r)
	if err != nil {
		return rep, fmt.Errorf("disaster recovery of %s, member %s: %w", t, t.Member, err)
	}
	return rep, nil
}

func (p *Plugin) bootstrap(ctx context.Context, t plugins.Target, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	self, err := t.Self()
	if err != nil {
		return plugins.Report{}, err
	}
	if program := self.Options["control_program"]; program != "" {
		if err := control(ctx, program, "start", self.Name); err != nil {
			return plugins.Report{}, err
		}
	}
	s, err := p.awaitRing(ctx, t, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := s.restore(ctx, run, r)
	return rep, errors.Join(err, s.Close())
}

// awaitRing opens the node once it and all the others are up. Credentials that are refused are not waited for: the
// server has been installed without the product's role.
func (p *Plugin) awaitRing(ctx context.Context, t plugins.Target, run plugins.Run) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	for {
		ses, err := p.Open(ctx, t)
		if err == nil {
			s := ses.(*session)
			if err = s.down; err == nil {
				err = s.complete(ctx)
			}
			if err == nil {
				err = s.allHere(ctx)
			}
			if err == nil {
				return s, nil
			}
			err = errors.Join(err, s.Close())
		}
		if !errors.Is(err, plugins.ErrUnavailable) {
			return nil, err
		}
		run.Log.Debug("the ring is not up yet", slog.Any("err", err))
		if perr := plugins.Sleep(ctx, time.Second); perr != nil {
			return nil, fmt.Errorf("the ring does not come up: %w: %w", err, perr)
		}
	}
}

// allHere says whether the node has met as many nodes as the estate file names.
func (s *session) allHere(ctx context.Context) error {
	r, err := s.readRing(ctx)
	if err == nil && len(r.Nodes) < len(s.cfg.target.Members) {
		err = fmt.Errorf("%s: the node knows %d nodes, the estate file names %d: %w: see `nodetool status`", s.cfg.target, len(r.Nodes), len(s.cfg.target.Members), plugins.ErrUnavailable)
	}
	return err
}

// control runs the operator's program that stops and starts servers: PROGRAM stop|start|status MEMBER.
func control(ctx context.Context, program, verb, member string) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, verb, member)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a server that the program left in the background may hold the pipe open
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return fmt.Errorf("control program %s %s %s: %w: it said %.500q: run it by hand to see why", program, verb, member, err, strings.TrimSpace(out.String()))
	}
	return nil
}
