package etcd

import (
	"context"
	"strconv"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// untouched says that keys and leases are those of the backup, without
// reading them: a backup taken a moment ago (run.Live) holds the same, and the
// cluster is still at that one's revision. Leases come and go without a
// revision, so they are listed.
func (s *session) untouched(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, want *stored) (bool, error) {
	if run.Live == nil {
		return false, nil
	}
	sums := map[string]plugins.Digest{}
	for _, a := range r.Artifacts() {
		if a.Name == artKeys || a.Name == artLeases {
			sums[a.Name] = a.Digest
		}
	}
	var revision string
	for _, a := range run.Live.Artifacts() {
		sum, ok := sums[a.Name]
		if !ok {
			continue
		}
		if a.Digest != sum {
			return false, nil
		}
		delete(sums, a.Name)
		revision = a.Attributes[attrRevision]
	}
	if len(sums) > 0 {
		return false, nil
	}
	now, err := s.c.Get(ctx, epochKey)
	if err != nil {
		return false, s.cfg.wrap("read the revision", err)
	}
	if strconv.FormatInt(now.Header.Revision, 10) != revision {
		return false, nil
	}
	ls, err := s.c.Leases(ctx)
	if err != nil {
		return false, s.cfg.wrap("list leases", err)
	}
	found := 0
	for _, l := range ls.Leases {
		if want.leases[leaseKey(int64(l.ID))] != nil {
			found++
		} else if _, own := epochOf(int64(l.ID), leaseTime); !own {
			return false, nil
		}
	}
	return found == len(want.leases), nil
}
