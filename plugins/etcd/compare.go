package etcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const (
	maxNamed  = 20      // names in one Difference
	maxJudged = 100_000 // differing keys whose last writer is looked for
)

// Compare reads the live data and says where it differs from the backup. Keys
// and leases of a lease that has run out lawfully are equal.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	out, err := s.compare(ctx, run, r)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", s.cfg.target, err)
	}
	return out, nil
}

func (s *session) compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	want, err := read(ctx, r)
	if err != nil {
		return nil, err
	}
	v, err := s.look(ctx, run)
	if err != nil {
		return nil, err
	}
	d := &differing{kinds: map[string]string{}}
	at := granted(run)
	if f, ok := s.known.recall(s.cfg.target.String(), v); run.AccountsOnly || ok && f.want == keysOf(r) && f.keys == (tally{}) {
		err = v.close()
	} else {
		_, err = s.walk(ctx, run, r, v, func(key, w, live []byte) {
			kind := "changed"
			switch {
			case w == nil:
				kind = "extra"
			case live == nil:
				kind = "missing"
				lease := string(w[:8])
				if _, there := v.leases[leaseID(lease)]; binary.BigEndian.Uint64(w) != 0 && !there && want.lapsed(lease, at) {
					return
				}
			}
			d.add(string(key), kind)
		})
	}
	if err != nil {
		return nil, err
	}
	out, err := s.judge(ctx, run, d)
	if err != nil {
		return nil, err
	}
	return s.small(run, want, v, at, out)
}

// small adds what differs of leases and, once they have been restored, of accounts.
func (s *session) small(run plugins.Run, want *stored, v *view, at time.Time, out []plugins.Difference) ([]plugins.Difference, error) {
	leases := leaseRecords(v.leases)
	for id := range want.leases {
		if leases[id] == nil && want.lapsed(id, at) {
			delete(want.leases, id)
		}
	}
	hex := func(k string) string { return fmt.Sprintf("%x", k) }
	out = append(out, diffSmall(artLeases, leases, want.leases, hex)...)
	done, err := accountsDone(run)
	if err != nil || !done {
		return out, err
	}
	users, roles := userRecords(v.users), roleRecords(v.roles)
	if self := s.cfg.user; want.users[self] == nil {
		delete(users, self) // declared: it stays because the restore worked with it
		if want.roles[rootRole] == nil {
			delete(roles, rootRole)
		}
	}
	out = append(out, diffSmall(artUsers, users, want.users, strconv.Quote)...)
	out = append(out, diffSmall(artRoles, roles, want.roles, strconv.Quote)...)
	return append(out, diffSmall(artAuth, authRecords(v.auth), authRecords(want.auth), strconv.Quote)...), nil
}

// diffSmall compares leases or accounts. Each request that a restore makes for
// them is acknowledged before the restore ends: what differs later is somebody else's doing.
func diffSmall(artifact string, live, want map[string][]byte, show func(string) string) []plugins.Difference {
	names := map[string][]string{}
	for k, w := range want {
		if l, ok := live[k]; !ok {
			names["missing"] = append(names["missing"], show(k))
		} else if !bytes.Equal(l, w) {
			names["changed"] = append(names["changed"], show(k))
		}
	}
	for k := range live {
		if _, ok := want[k]; !ok {
			names["extra"] = append(names["extra"], show(k))
		}
	}
	var out []plugins.Difference
	for _, kind := range slices.Sorted(maps.Keys(names)) {
		slices.Sort(names[kind])
		out = append(out, plugins.Difference{Artifact: artifact, Kind: kind, Detail: detail(names[kind], len(names[kind])), Foreign: true})
	}
	return out
}

func detail(names []string, n int) string {
	s := fmt.Sprintf("%d: %s", n, strings.Join(names[:min(len(names), maxNamed)], ", "))
	if n > maxNamed {
		s += ", …"
	}
	return s
}

// differing are the keys that differ: their kinds, as many as can be judged.
type differing struct {
	kinds map[string]string
	more  int
}

func (d *differing) add(key, kind string) {
	if len(d.kinds) < maxJudged {
		d.kinds[key] = kind
	} else {
		d.more++
	}
}

// judge finds out who wrote each differing key last. Every transaction of a
// restore also puts the epoch key: a revision without it is somebody else's.
func (s *session) judge(ctx context.Context, run plugins.Run, d *differing) ([]plugins.Difference, error) {
	if len(d.kinds) == 0 {
		return nil, nil
	}
	foreign, err := s.foreign(ctx, run, d.kinds)
	if err != nil {
		return nil, err
	}
	type group struct {
		kind    string
		foreign bool
	}
	groups := map[group][]string{}
	for key, kind := range d.kinds {
		g := group{kind, foreign(key)}
		groups[g] = append(groups[g], strconv.QuoteToASCII(key))
	}
	var out []plugins.Difference
	for g, names := range groups {
		slices.Sort(names)
		out = append(out, plugins.Difference{Artifact: artKeys, Kind: g.kind, Detail: detail(names, len(names)), Foreign: g.foreign})
	}
	if d.more > 0 {
		all := !slices.ContainsFunc(out, func(d plugins.Difference) bool { return !d.Foreign })
		out = append(out, plugins.Difference{Artifact: artKeys, Kind: "changed", Detail: fmt.Sprintf("%d more keys", d.more), Foreign: all})
	}
	slices.SortFunc(out, func(a, b plugins.Difference) int { return strings.Compare(a.Kind+a.Detail, b.Kind+b.Detail) })
	return out, nil
}

// foreign replays the events since the first write of this epoch.
func (s *session) foreign(ctx context.Context, run plugins.Run, keys map[string]string) (func(string) bool, error) {
	r, err := s.c.Get(ctx, epochKey)
	if err != nil {
		return nil, s.cfg.wrap("read the epoch", err)
	}
	now := parseClaim(r)
	since, end := now.Since, r.Header.Revision
	if now.Epoch != run.Epoch && run.Operation != plugins.OpDisaster {
		// Nothing was written in this epoch: whatever differs was written by others.
		return func(string) bool { return true }, nil
	}
	if now.Epoch != run.Epoch {
		since = 0 // disaster recovery: its history begins at the compaction that it made
	}
	last := map[string]bool{} // by key: was the last event somebody else's?
	for since < end {
		compacted, err := s.replay(ctx, since+1, end, func(events []*clientv3.Event) {
			ours := slices.ContainsFunc(events, func(e *clientv3.Event) bool { return string(e.Kv.Key) == epochKey })
			for _, e := range events {
				if _, ok := keys[string(e.Kv.Key)]; ok {
					last[string(e.Kv.Key)] = !ours
				}
			}
		})
		if err != nil {
			return nil, err
		}
		if compacted == 0 {
			break
		}
		since = compacted
	}
	return func(key string) bool { return last[key] }, nil
}

// replay gives the events from revision from to revision end, grouped by revision. Where
// they were compacted away it gives back the revision up to which they are gone.
func (s *session) replay(ctx context.Context, from, end int64, each func([]*clientv3.Event)) (compacted int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range s.c.Watch(clientv3.WithRequireLeader(ctx), "\x00", clientv3.WithFromKey(), clientv3.WithRev(from)) {
		if resp.CompactRevision > 0 {
			return resp.CompactRevision, nil
		}
		if err := resp.Err(); err != nil {
			return 0, ignore(s.cfg.wrap("read the history", err), rpctypes.ErrCompacted)
		}
		for events := resp.Events; len(events) > 0; {
			n := 1
			for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
				n++
			}
			each(events[:n])
			if events[0].Kv.ModRevision >= end {
				return 0, nil
			}
			events = events[n:]
		}
	}
	return 0, s.cfg.wrap("read the history", errors.Join(ctx.Err(), errors.New("the watch ended early")))
}
