package cassandra

import (
	"context"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// cacheValidity is how long the server believes what it has read of accounts (roles_validity and others, default).
const cacheValidity = 2 * time.Second

// forgetAccounts returns when the server believes no more what it has read of accounts before. Nodetool needs a second for each of
// three caches, and their entries live for two by default: then they are waited out.
func (s *session) forgetAccounts(ctx context.Context, run plugins.Run) error {
	if _, slow := s.admin.(nodetool); slow {
		if d := s.accountCaches(ctx); d > 0 && d <= cacheValidity {
			return plugins.Sleep(ctx, d)
		}
	}
	err := s.admin.forget(ctx)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	run.Log.Info("the node's caches of accounts end by themselves", "err", err)
	return plugins.Sleep(ctx, cacheValidity)
}

// accountCaches is the longest life of an entry in them, 0 when the server does not tell.
func (s *session) accountCaches(ctx context.Context) (longest time.Duration) {
	for _, name := range []string{"roles_validity", "permissions_validity", "credentials_validity"} {
		var v *string
		q := "SELECT value FROM system_views.settings WHERE name = ?"
		if err := s.c.Query(q, name).WithContext(ctx).Scan(&v); err != nil || v == nil { // 4.0 has other names
			return 0
		}
		d, err := time.ParseDuration(*v)
		if err != nil {
			return 0
		}
		longest = max(longest, d)
	}
	return longest
}
