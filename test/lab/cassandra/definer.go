package cassandra

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// definer makes definitions through one node without waiting for the others after each: they tell by gossip, a second
// later, what they heard of at once.
type definer struct {
	c     *gocql.Session
	ahead int // definitions that nobody has waited for
}

// maxAhead bounds what a slow node has still to take in.
const maxAhead = 8

func define(ctx context.Context, m engine.Member) (*definer, error) {
	c, err := dialWaiting(ctx, m, Admin, m.Options["admin_password_file"], 0)
	if err != nil {
		return nil, err
	}
	return &definer{c: c}, nil
}

// exec runs a statement; one that touches rows finds all nodes agreed.
func (d *definer) exec(ctx context.Context, statement string) error {
	defines := false
	for _, verb := range []string{"CREATE", "ALTER", "DROP"} {
		defines = defines || strings.HasPrefix(statement, verb+" ")
	}
	if !defines || d.ahead == maxAhead {
		if err := d.agreed(ctx); err != nil {
			return err
		}
	}
	if defines {
		d.ahead++
	}
	return d.c.Query(statement).WithContext(ctx).Exec()
}

// agreed waits until all nodes hold the same definitions.
func (d *definer) agreed(ctx context.Context) error {
	if d.ahead == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		own, err := column(ctx, d.c, "SELECT schema_version FROM system.local")
		if err != nil {
			return err
		}
		peers, err := column(ctx, d.c, "SELECT schema_version FROM system.peers_v2")
		if err != nil {
			return err
		}
		same := true
		for _, v := range peers {
			same = same && v == own[0]
		}
		if same {
			d.ahead = 0
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the nodes do not agree on the definitions: %w; look at their logs", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
