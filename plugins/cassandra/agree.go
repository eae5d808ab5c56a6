package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// The nodes' units restore one cluster together, each from its own VM: definitions are mended and tables emptied
// once, and not before every unit has its files at hand; then every unit imports its own. They
// agree through a table in a keyspace of the product. A claim on it holds the epoch, changed by
// lightweight transactions only; an attempt of a lower epoch is refused at each step.
const ownKeyspace = "cso_backup"

// Consistency of the product's own statements. The fence lets ALL and LOCAL_SERIAL through, for them.
const (
	ownWrite  = gocql.All
	ownSerial = gocql.LocalSerial
)

// The ids are fixed, so that nodes which make the tables at the same time make the same ones.
var ownTables = []string{
	`CREATE TABLE IF NOT EXISTS ` + ownKeyspace + `.claim (name text PRIMARY KEY, epoch bigint, attempt text) WITH ID = 2f0f6b1e-53c7-4a3e-9d2c-6c736f6201aa`,
	`CREATE TABLE IF NOT EXISTS ` + ownKeyspace + `.step (work text, pass int, what text, member text, value blob, PRIMARY KEY (work, pass, what, member)) WITH ID = 2f0f6b1e-53c7-4a3e-9d2c-6c736f6202aa`,
}

const (
	stepTTL    = 7 * 24 * 3600 // seconds that steps are kept
	aliveTTL   = 30            // seconds that a sign of life counts
	aliveEvery = 8 * time.Second
	lostAfter  = 5 * time.Minute // without a sign of life of a unit that is waited for
	aloneAfter = 20 * time.Second
)

// claim belongs to one attempt at changing the cluster.
type claim struct {
	s   *session
	run plugins.Run
}

// claim claims the cluster for the epoch of the run.
func (s *session) claim(ctx context.Context, run plugins.Run) (*claim, error) {
	if s.down != nil {
		return nil, fmt.Errorf("%s: node %s is down: %w: a restore needs all nodes", s.cfg.target, s.cfg.self.Name, s.down)
	}
	if err := s.ownSchema(ctx); err != nil {
		return nil, err
	}
	c := &claim{s, run}
	for {
		now, err := c.holder(ctx, gocql.All)
		if err != nil {
			return nil, err
		}
		switch {
		case now == int64(run.Epoch):
			return c, nil
		case now > int64(run.Epoch):
			return nil, c.fenced(now)
		}
		if err := c.take(ctx, now); err != nil {
			return nil, err
		}
	}
}

// take moves the claim from one epoch to the run's, if nobody else has moved it; 0: there is none yet.
// A ballot that timed out may have been taken or not: the next look tells.
func (c *claim) take(ctx context.Context, from int64) error {
	var q *gocql.Query
	if from == 0 {
		q = c.s.c.Query(`INSERT INTO `+ownKeyspace+`.claim (name, epoch, attempt) VALUES ('restore', ?, ?) IF NOT EXISTS`, int64(c.run.Epoch), c.run.Attempt)
	} else {
		q = c.s.c.Query(`UPDATE `+ownKeyspace+`.claim SET epoch = ?, attempt = ? WHERE name = 'restore' IF epoch = ?`, int64(c.run.Epoch), c.run.Attempt, from)
	}
	return c.s.again(ctx, "claim the cluster", func() error {
		_, err := q.Consistency(ownWrite).SerialConsistency(ownSerial).WithContext(ctx).MapScanCAS(map[string]any{})
		return err
	})
}

// holder reads which epoch has claimed the cluster, 0 when none has. A claim counts once it was read from all
// nodes, which mends those that had missed it, so that a read from most of them cannot miss it afterwards.
func (c *claim) holder(ctx context.Context, level gocql.Consistency) (now int64, err error) {
	err = c.s.again(ctx, "check the claim", func() error {
		err := c.s.c.Query(`SELECT epoch FROM ` + ownKeyspace + `.claim WHERE name = 'restore'`).Consistency(level).WithContext(ctx).Scan(&now)
		if errors.Is(err, gocql.ErrNotFound) {
			return nil
		}
		return err
	})
	return now, err
}

// tries is how often a statement on the product's own tables is made before its time-out counts: ballots
// of several nodes at once outvote each other.
const tries = 5

// again repeats a statement that may be repeated while nodes do not answer in time.
func (s *session) again(ctx context.Context, what string, do func() error) error {
	for try := 1; ; try++ {
		err := s.cfg.wrap(ctx, what, do())
		if err == nil || try == tries || !errors.Is(err, plugins.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		if err := plugins.Sleep(ctx, time.Duration(try)*200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (c *claim) fenced(by int64) error {
	return fmt.Errorf("%s: epoch %d, the cluster belongs to epoch %d: %w", c.s.cfg.target, c.run.Epoch, by, plugins.ErrFenced)
}

// check asks whether the epoch still holds the cluster; before each step that Cassandra cannot make conditional.
func (c *claim) check(ctx context.Context) error {
	now, err := c.holder(ctx, gocql.Quorum)
	if err != nil {
		return err
	}
	if now != int64(c.run.Epoch) {
		return c.fenced(now)
	}
	return nil
}

// ownSchema makes the product's keyspace, on as many nodes as there are, up to three.
func (s *session) ownSchema(ctx context.Context) error {
	var n int
	if err := s.c.Query(`SELECT count(*) FROM system_schema.tables WHERE keyspace_name = ? `, ownKeyspace).WithContext(ctx).Scan(&n); err != nil {
		return s.cfg.wrap(ctx, "look for the product's keyspace", err)
	}
	r, err := s.readRing(ctx)
	if err != nil {
		return err
	}
	replication := fmt.Sprintf(`WITH replication = {'class': 'SimpleStrategy', 'replication_factor': %d}`, min(3, len(r.Nodes)))
	list := append([]string{`CREATE KEYSPACE IF NOT EXISTS ` + ownKeyspace + ` ` + replication}, ownTables...)
	if n == len(ownTables) {
		var repl map[string]string
		if err := s.c.Query(`SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?`, ownKeyspace).WithContext(ctx).Scan(&repl); err != nil {
			return s.cfg.wrap(ctx, "look at the product's keyspace", err)
		}
		if copies(repl["replication_factor"]) <= len(r.Nodes) {
			return nil
		}
		list = []string{`ALTER KEYSPACE ` + ownKeyspace + ` ` + replication} // nodes have left the ring: ALL would ask for them
	}
	for _, q := range list {
		if err := s.c.Query(q).WithContext(ctx).Exec(); err != nil {
			return s.cfg.wrap(ctx, "make the product's keyspace", err)
		}
	}
	return s.settled(ctx)
}

// settled waits until all nodes have one schema.
func (s *session) settled(ctx context.Context) error {
	for deadline := time.Now().Add(agreeTimeout); ; {
		seen := map[string]bool{}
		for _, q := range []string{"SELECT schema_version FROM system.local", "SELECT schema_version FROM system.peers_v2"} {
			it := s.c.Query(q).WithContext(ctx).Iter()
			var v gocql.UUID
			for it.Scan(&v) {
				seen[v.String()] = true
			}
			if err := it.Close(); err != nil {
				return s.cfg.wrap(ctx, "ask for schema versions", err)
			}
		}
		if len(seen) == 1 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: the nodes hold %d versions of the schema: %w: see `nodetool describecluster`", s.cfg.target, len(seen), plugins.ErrUnavailable)
		}
		if err := plugins.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// pass is one time that all units go through the steps of a restore; a repair is another pass.
type pass struct {
	c       *claim
	work    string
	number  int
	me      string
	members []string
	stop    func()
}

// leader takes the steps that are taken once.
func (p *pass) leads() bool { return p.me == p.members[0] }

// enter finds the pass that is under way, or begins the next; done: this unit's part of it is finished.
func (c *claim) enter(ctx context.Context) (p *pass, done bool, err error) {
	p, finished, err := c.latest(ctx)
	if err != nil {
		return nil, false, err
	}
	all := true
	for _, m := range p.members {
		all = all && finished[m]
	}
	switch {
	case all:
		p.number++
	case finished[p.me]:
		return p, true, nil
	}
	p.live(ctx)
	return p, false, nil
}

// latest is the newest pass of the work, and the members that have finished it.
func (c *claim) latest(ctx context.Context) (*pass, map[string]bool, error) {
	p := &pass{c: c, me: c.s.cfg.self.Name, work: work(c.run), number: 1, stop: func() {}}
	for _, m := range c.s.cfg.target.Members {
		p.members = append(p.members, m.Name)
	}
	finished := map[int]map[string]bool{}
	err := c.s.again(ctx, "read the steps", func() error {
		it := c.s.c.Query(`SELECT pass, what, member FROM `+ownKeyspace+`.step WHERE work = ?`, p.work).Consistency(gocql.Quorum).WithContext(ctx).Iter()
		var n int
		var what, member string
		for it.Scan(&n, &what, &member) {
			if finished[n] == nil {
				finished[n] = map[string]bool{}
			}
			if what == "done" {
				finished[n][member] = true
			}
			if what != "alive" {
				p.number = max(p.number, n)
			}
		}
		return it.Close()
	})
	return p, finished[p.number], err
}

// live shows the others that this unit works, until leave.
func (p *pass) live(ctx context.Context) {
	if len(p.members) == 1 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	p.stop = func() { cancel(); <-ended }
	go func() {
		defer close(ended)
		for {
			q := p.c.s.c.Query(`INSERT INTO `+ownKeyspace+`.step (work, pass, what, member, value) VALUES (?, ?, 'alive', ?, 0x) USING TTL ?`, p.work, p.number, p.me, aliveTTL)
			if err := q.Consistency(ownWrite).WithContext(ctx).Exec(); err != nil && ctx.Err() == nil {
				p.c.run.Log.Warn("show that this unit works", "err", err)
			}
			if plugins.Sleep(ctx, aliveEvery) != nil {
				return
			}
		}
	}()
}

func (p *pass) leave() { p.stop() }

// put writes a step of this unit.
func (p *pass) put(ctx context.Context, what string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	q := p.c.s.c.Query(`INSERT INTO `+ownKeyspace+`.step (work, pass, what, member, value) VALUES (?, ?, ?, ?, ?) USING TTL ?`, p.work, p.number, what, p.me, b, stepTTL)
	return p.c.s.again(ctx, "write a step", func() error { return q.Consistency(ownWrite).WithContext(ctx).Exec() })
}

// get reads the steps of one kind, by member.
func (p *pass) get(ctx context.Context, what string) (map[string][]byte, error) {
	var out map[string][]byte
	err := p.c.s.again(ctx, "read the steps", func() error {
		it := p.c.s.c.Query(`SELECT member, value FROM `+ownKeyspace+`.step WHERE work = ? AND pass = ? AND what = ?`, p.work, p.number, what).Consistency(gocql.Quorum).WithContext(ctx).Iter()
		out = map[string][]byte{}
		var m string
		var v []byte
		for it.Scan(&m, &v) {
			out[m] = slices.Clone(v)
		}
		return it.Close()
	})
	return out, err
}

// imported lists the tables this unit has imported in this pass.
func (p *pass) imported(ctx context.Context) (map[string]bool, error) {
	it := p.c.s.c.Query(`SELECT what, member FROM `+ownKeyspace+`.step WHERE work = ? AND pass = ?`, p.work, p.number).Consistency(gocql.Quorum).WithContext(ctx).Iter()
	out := map[string]bool{}
	var what, m string
	for it.Scan(&what, &m) {
		if t, ok := strings.CutPrefix(what, "import "); ok && m == p.me {
			out[t] = true
		}
	}
	return out, p.c.s.cfg.wrap(ctx, "read the steps", it.Close())
}

// alone is what await returns when no other unit takes part.
type alone struct{ error }

func (a alone) Unwrap() error { return a.error }

// await waits until the members have taken a step. A member without a sign of life is not waited for for ever.
func (p *pass) await(ctx context.Context, what string, members []string, patience time.Duration) (map[string][]byte, error) {
	seen := time.Now()
	for {
		got, err := p.get(ctx, what)
		if err != nil {
			return nil, err
		}
		var missing []string
		for _, m := range members {
			if _, ok := got[m]; !ok {
				missing = append(missing, m)
			}
		}
		if len(missing) == 0 {
			return got, nil
		}
		if err := p.c.check(ctx); err != nil {
			return nil, err
		}
		alive, err := p.get(ctx, "alive")
		if err != nil {
			return nil, err
		}
		lost := slices.DeleteFunc(slices.Clone(missing), func(m string) bool { _, ok := alive[m]; return ok })
		if len(lost) == 0 {
			seen = time.Now()
		}
		if time.Since(seen) > patience {
			return nil, alone{fmt.Errorf("%s: the units of %s take no part in the restore: %w: all nodes of a cluster are restored together; look at their workers",
				p.c.s.cfg.target, strings.Join(lost, ", "), plugins.ErrUnavailable)}
		}
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// withdraw takes back what this unit has said in this pass.
func (p *pass) withdraw(ctx context.Context) error {
	q := p.c.s.c.Query(`DELETE FROM `+ownKeyspace+`.step WHERE work = ? AND pass = ? AND what = 'vote' AND member = ?`, p.work, p.number, p.me)
	return p.c.s.cfg.wrap(ctx, "withdraw", q.Consistency(ownWrite).WithContext(ctx).Exec())
}
