package arangodb

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const maxNames = 8

// names shows the first of many names, and how many there are.
type names struct {
	first []string
	n     int
}

func (s *names) add(x string) {
	if s.n++; len(s.first) < maxNames {
		s.first = append(s.first, x)
	}
}

func (s *names) String() string {
	t := strings.Join(s.first, ", ")
	if s.n > len(s.first) {
		t += fmt.Sprintf(" and %d more", s.n-len(s.first))
	}
	return t
}

// delta is where the live data differs, by artifact and kind.
type delta struct {
	mu     sync.Mutex
	by     map[string]map[string]*names
	bytes  int64
	unread map[string]bool // artifacts for which the server vouched
}

func (d *delta) add(artifact, kind, name string, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by[artifact] == nil {
		d.by[artifact] = map[string]*names{}
	}
	if d.by[artifact][kind] == nil {
		d.by[artifact][kind] = &names{}
	}
	d.by[artifact][kind].add(name)
	d.bytes += int64(bytes)
}

// difference reads the live data and compares all of it, accounts included. With quick, collections whose
// identity the server vouches for are not read.
func (s *session) difference(ctx context.Context, run plugins.Run, r plugins.ArtifactReader, quick bool) (*delta, *layout, *stored, error) {
	want, err := readStored(ctx, r)
	if err != nil {
		return nil, nil, nil, err
	}
	v, err := s.snapshot(ctx, run)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { _ = v.release(ctx) }()
	live, err := v.readLayout(ctx, run.Parallel)
	if err != nil {
		return nil, nil, nil, err
	}
	d := &delta{by: map[string]map[string]*names{}, unread: map[string]bool{}}
	if err := s.compareAccounts(ctx, v, live, r, d); err != nil || run.AccountsOnly {
		return d, live, want, err
	}
	for _, it := range s.differ(live, want) {
		name := it.kind + " " + it.name
		if it.kind == "database" {
			name = it.db
		}
		d.add(it.artifact(), it.how, name, len(it.want))
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	for db, wd := range want.databases {
		var ld map[string]*collection
		if x := live.databases[db]; x != nil {
			ld = x.collections
		}
		for _, name := range union(ld, wd.collections) {
			info, stored := want.infos[documentsName(db, name)]
			if hidden(db, name) || !stored && !serverOwned(name) {
				continue
			}
			g.Go(func() error {
				var a *plugins.ArtifactInfo
				if stored {
					a = &info
				}
				return v.compareCollection(gctx, db, name, ld[name], wd.collections[name], a, run, r, d, quick)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, nil, nil, err
	}
	return d, live, want, nil
}

func (v *view) compareCollection(ctx context.Context, db, name string, live, want *collection, a *plugins.ArtifactInfo, run plugins.Run, r plugins.ArtifactReader, d *delta, quick bool) error {
	artifact := documentsName(db, name)
	if live == nil {
		if a != nil && want != nil && want.def != nil {
			d.add(artifact, "missing", fmt.Sprintf("all %d documents", a.Records), int(a.Bytes))
			return nil
		}
	} else if quick && a != nil && a.Identity != "" {
		same, err := v.unchanged(ctx, db, live, a.Identity)
		if err != nil {
			return err
		}
		if same {
			d.mu.Lock()
			d.unread[artifact] = true
			d.mu.Unlock()
			return nil
		}
	}
	var lr *liveRecords
	if live != nil {
		var err error
		lr, err = v.readLive(ctx, db, live, run)
		defer lr.close()
		if err != nil {
			return err
		}
	}
	var es []expiry
	if want != nil {
		es = want.expiries()
	}
	now := time.Now()
	kinds := map[byte]string{'+': "missing", '~': "changed", '-': "extra"}
	return diffDocuments(ctx, lr, a, r, func(c change) error {
		if c.how != '+' || !lapsed(c.body, es, now) {
			d.add(artifact, kinds[c.how], string(c.key), len(c.body))
		}
		return nil
	})
}

func (s *session) compareAccounts(ctx context.Context, v *view, live *layout, r plugins.ArtifactReader, d *delta) error {
	want, err := readSmall(ctx, r, accountsName)
	if err != nil {
		return err
	}
	have, err := v.readAccounts(ctx, live)
	if err != nil {
		return err
	}
	for _, n := range union(have, want) {
		switch a, b := have[n], want[n]; {
		case a == nil:
			d.add(accountsName, "missing", n, len(b))
		case b == nil:
			d.add(accountsName, "extra", n, 0)
		case !bytes.Equal(a, b):
			d.add(accountsName, "changed", n, len(b))
		}
	}
	return nil
}

// Compare says where the live data differs. A restore ends only once it has seen everything as it should be, or
// somebody else writing: what differs after it in the same run is somebody else's.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	d, _, _, err := s.difference(ctx, run, r, false)
	if err != nil {
		return nil, s.verdict(ctx, err)
	}
	foreign, err := recall(run)
	if err != nil {
		return nil, err
	}
	var out []plugins.Difference
	for _, a := range sortedKeys(d.by) {
		for _, kind := range sortedKeys(d.by[a]) {
			out = append(out, plugins.Difference{Artifact: a, Kind: kind, Detail: d.by[a][kind].String(), Foreign: foreign})
		}
	}
	return out, nil
}

// Plan says what a restore would change, by artifact.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var p plugins.Plan
	d, live, want, err := s.difference(ctx, run, r, true)
	if err != nil {
		return p, s.verdict(ctx, err)
	}
	for _, a := range r.Artifacts() {
		kinds := d.by[a.Name]
		switch {
		case a.Volatile:
		case len(kinds) == 0:
			p.Unchanged = append(p.Unchanged, a.Name)
		default:
			p.Change = append(p.Change, a.Name)
		}
	}
	for a := range d.by {
		if _, ok := want.infos[a]; !ok {
			p.Change = append(p.Change, a)
		}
	}
	for _, it := range s.differ(live, want) {
		switch it.how {
		case "missing":
			p.Add = append(p.Add, it.String())
		case "extra":
			p.Remove = append(p.Remove, it.String())
		}
	}
	p.Write, p.Space = d.bytes, d.bytes
	if v, err := parseVersion(want.version); err == nil && v.major*1000+v.minor > s.version.major*1000+s.version.minor {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the backup is of ArangoDB %s, the server is %s: what is new in it may be refused", want.version, s.version.text))
	}
	if want.mode != s.mode() {
		p.Inexact = append(p.Inexact, plugins.Inexact{What: "sharding and replication of collections", Why: "the backup is of a " + want.mode + " and the live server is a " + s.mode()})
	}
	ahead := &names{}
	for n, w := range want.last {
		db, coll, _ := strings.Cut(n, "/")
		if ld := live.databases[db]; ld != nil && ld.collections[coll] != nil && behind(string(w), ld.collections[coll].last) {
			ahead.add(n)
		}
	}
	if ahead.n > 0 {
		p.Inexact = append(p.Inexact, plugins.Inexact{What: "the key generators of " + ahead.String(), Why: "they have gone on since, and generated keys only grow"})
	}
	return p, nil
}
