package etcd

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plan says what Restore and RestoreAccounts would change.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	p, err := s.plan(ctx, run, r)
	if err != nil {
		return p, fmt.Errorf("plan %s: %w", s.cfg.target, err)
	}
	return p, nil
}

func (s *session) plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (p plugins.Plan, err error) {
	want, err := read(ctx, r)
	if err != nil {
		return p, err
	}
	v, err := s.look(ctx, run)
	if err != nil {
		return p, err
	}
	f, ok := s.known.recall(s.cfg.target.String(), v)
	if ok && f.want == keysOf(r) {
		err = v.close()
	} else {
		f, err = s.walk(ctx, run, r, v, func(_, _, _ []byte) {})
	}
	if err != nil {
		return p, err
	}
	p.Write = f.bytes
	f.keys.into(&p, artKeys)
	for _, a := range []struct {
		name       string
		live, want map[string][]byte
	}{
		{artLeases, leaseRecords(v.leases), want.leases},
		{artRoles, roleRecords(v.roles), want.roles},
		{artUsers, userRecords(v.users), want.users},
		{artAuth, authRecords(v.auth), authRecords(want.auth)},
	} {
		t := tally{}
		for k, w := range a.want {
			if l := a.live[k]; string(l) != string(w) {
				t.count(w, l)
			}
		}
		for k, l := range a.live {
			if a.want[k] == nil {
				t.count(nil, l)
			}
		}
		t.into(&p, a.name)
	}
	p.Space = p.Write
	p.Inexact = passwordsOff(want, v, s.cfg.user)
	if want.auth && !v.auth && s.cfg.user == "" {
		p.Refusals = append(p.Refusals, "authentication was on in the backup, and the estate file names no user: give user root and a password file")
	}
	alarms, err := s.c.AlarmList(ctx)
	if err != nil {
		return p, s.cfg.wrap("list the alarms", err)
	}
	for _, a := range alarms.Alarms {
		if a.Alarm == pb.AlarmType_NOSPACE {
			p.Refusals = append(p.Refusals, fmt.Sprintf("alarm NOSPACE of member %x: the cluster takes no writes; compact, defragment and disarm it first", a.MemberID))
		}
	}
	return p, nil
}

// tally counts the records of one artifact by what a restore would do to them.
type tally struct{ change, add, remove int }

func (t *tally) count(want, live []byte) {
	switch {
	case want == nil:
		t.remove++
	case live == nil:
		t.add++
	default:
		t.change++
	}
}

func (t tally) into(p *plugins.Plan, name string) {
	for _, x := range []struct {
		n  int
		to *[]string
	}{{t.change, &p.Change}, {t.add, &p.Add}, {t.remove, &p.Remove}} {
		if x.n > 0 {
			*x.to = append(*x.to, fmt.Sprintf("%s (%d)", name, x.n))
		}
	}
	if t == (tally{}) {
		p.Unchanged = append(p.Unchanged, name)
	}
}
