package etcd

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Health asks every member.
func (s *session) Health(ctx context.Context) (plugins.Health, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Health{}, err
	}
	h := plugins.Health{Grade: plugins.Green}
	worse := func(g plugins.Grade, format string, args ...any) {
		if h.Grade != plugins.Red {
			h.Grade = g
		}
		h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
	}
	members, err := s.c.MemberList(ctx)
	if err != nil {
		return h, s.cfg.wrap("list the members", err)
	}
	h.Members = len(members.Members)
	if n := len(s.cfg.endpoints); n != h.Members {
		worse(plugins.Amber, "the cluster has %d members, the estate file names %d", h.Members, n)
	}
	leaders := map[uint64]bool{}
	for _, ep := range s.cfg.endpoints {
		st, err := s.status(ctx, ep)
		if ctx.Err() != nil {
			return h, ctx.Err()
		}
		if err != nil {
			worse(plugins.Amber, "%s does not answer: %v", ep, err)
			continue
		}
		if h.Version == "" {
			h.Version, h.Estimate = st.Version, st.DbSize
		} else if h.Version != st.Version {
			worse(plugins.Amber, "members run different versions: %s and %s", h.Version, st.Version)
		}
		if !supported(st.Version) {
			worse(plugins.Red, "%s runs version %s: 3.4 to 3.7 are supported", ep, st.Version)
		}
		if st.Leader == 0 {
			worse(plugins.Red, "%s knows no leader", ep)
		}
		leaders[st.Leader] = true
		for _, e := range st.Errors {
			worse(plugins.Amber, "%s: %s", ep, e)
		}
	}
	if len(leaders) > 1 {
		worse(plugins.Amber, "members do not agree on the leader")
	}
	alarms, err := s.c.AlarmList(ctx)
	if err != nil {
		return h, s.cfg.wrap("list the alarms", err)
	}
	for _, a := range alarms.Alarms {
		worse(plugins.Red, "alarm %s of member %x", a.Alarm, a.MemberID)
	}
	if why, err := s.unequal(ctx); err != nil {
		return h, err
	} else if why != "" {
		worse(plugins.Red, "%s", why)
	}
	h.Empty, err = s.isEmpty(ctx)
	return h, err
}

func (s *session) status(ctx context.Context, ep string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return s.c.Status(ctx, ep)
}

func supported(version string) bool {
	for _, v := range []string{"3.4.", "3.5.", "3.6.", "3.7."} {
		if strings.HasPrefix(version, v) {
			return true
		}
	}
	return false
}

// isEmpty: no key, lease or user but the product's own and root.
func (s *session) isEmpty(ctx context.Context) (bool, error) {
	all, err := s.c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return false, s.cfg.wrap("count keys", err)
	}
	own, err := s.c.Get(ctx, ownPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return false, s.cfg.wrap("count keys", err)
	}
	sw, err := s.c.Get(ctx, s.cfg.switchKey, clientv3.WithCountOnly())
	if err != nil {
		return false, s.cfg.wrap("count keys", err)
	}
	if all.Count > own.Count+sw.Count {
		return false, nil
	}
	users, err := s.c.UserList(ctx)
	if err != nil {
		return false, s.cfg.wrap("list users", err)
	}
	for _, u := range users.Users {
		if u != "root" && u != s.cfg.user {
			return false, nil
		}
	}
	return true, nil
}

// unequal compares the members' data at one revision; a text says how they differ. Members
// that do not answer are left out: Health names them.
func (s *session) unequal(ctx context.Context) (string, error) {
	if len(s.cfg.endpoints) < 2 {
		return "", nil
	}
	var why string
	for range 3 { // a compaction between two requests, or a member that is behind: try again
		now, err := s.c.Get(ctx, epochKey)
		if err != nil {
			return "", s.cfg.wrap("read the revision", err)
		}
		sums := map[string][]string{}
		complete := true
		for _, ep := range s.cfg.endpoints {
			hctx, cancel := context.WithTimeout(ctx, 6*dialTimeout)
			h, err := s.c.HashKV(hctx, ep, now.Header.Revision)
			cancel()
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			if err != nil {
				complete = complete && transient(err)
				continue
			}
			sum := fmt.Sprintf("%08x since revision %d", h.Hash, h.CompactRevision)
			sums[sum] = append(sums[sum], ep)
		}
		if len(sums) <= 1 && complete {
			return "", nil
		}
		why = fmt.Sprintf("members hold different data at revision %d: %v", now.Header.Revision, sums)
		if len(sums) <= 1 {
			why = ""
		}
	}
	return why, nil
}

// gate refuses to back up a cluster whose data cannot be trusted. A safety
// backup takes what there is.
func (s *session) gate(ctx context.Context, run plugins.Run) error {
	if run.Operation == plugins.OpSafety {
		return nil
	}
	alarms, err := s.c.AlarmList(ctx)
	if err != nil {
		return s.cfg.wrap("list the alarms", err)
	}
	for _, a := range alarms.Alarms {
		if a.Alarm == pb.AlarmType_CORRUPT {
			return fmt.Errorf("%s: alarm CORRUPT of member %x: %w: replace that member first", s.cfg.target, a.MemberID, plugins.ErrData)
		}
	}
	why, err := s.unequal(ctx)
	if err == nil && why != "" {
		err = fmt.Errorf("%s: %s: %w: find the damaged member with etcdctl endpoint hashkv and replace it", s.cfg.target, why, plugins.ErrData)
	}
	return err
}
