package mariadb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Digest is a backup of the live data that stores nothing.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	d, _, err := s.digest(ctx, run, map[string]bool{})
	return d, err
}

func (s *session) digest(ctx context.Context, run plugins.Run, unordered map[string]bool) (map[string]plugins.Digest, *pin, error) {
	p, err := s.pin(ctx, parallel(run), false)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", s.member.Name, err)
	}
	defer p.release()
	d, tables := plugins.NewDigester(), map[string]plugins.Digest{}
	var mu sync.Mutex
	c := &copier{w: d, unordered: unordered, sums: func(name string, form plugins.Form, r rangeSum) {
		mu.Lock()
		defer mu.Unlock()
		tables[name] = r.digest
		s.known.note(p.stamp, p.catalog.tables[name], name, knownTable{form: form, digest: r.digest})
	}}
	if _, err := p.backup(ctx, run, c); err != nil {
		return nil, nil, err
	}
	maps.Copy(tables, d.Digests())
	return tables, p, nil
}

// Compare reads the live data as the backup was read and names what differs.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	if run.AccountsOnly {
		return s.compareAccounts(ctx, run, r)
	}
	live, p, err := s.digest(ctx, run, unorderedIn(r))
	if err != nil {
		return nil, err
	}
	foreign, err := s.overtaken(ctx, run)
	if err != nil {
		return nil, classify(ctx, err)
	}
	var out []plugins.Difference
	for _, d := range plugins.DiffDigests(live, r.Artifacts()) {
		switch d.Artifact {
		case accountsArtifact:
			want, err := readRecords(ctx, r, accountsArtifact)
			if err != nil {
				return nil, err
			}
			d.Detail = diffRecords(want, p.accounts, accountLabel)
		case definitionsArtifact:
			want, err := readRecords(ctx, r, definitionsArtifact)
			if err != nil {
				return nil, err
			}
			var have []record
			for _, o := range p.catalog.sorted() {
				k, v, err := o.record()
				if err != nil {
					return nil, err
				}
				have = append(have, record{k, v})
			}
			d.Detail = diffRecords(want, have, definitionLabel)
		}
		d.Foreign = foreign
		out = append(out, d)
	}
	return out, nil
}

// compareAccounts is Compare for the accounts alone.
func (s *session) compareAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	have, err := readAccounts(ctx, s.db)
	if err != nil {
		return nil, classify(ctx, err)
	}
	var live plugins.Digest
	for _, rec := range have {
		live.Add(rec.key, rec.value)
	}
	var accounts []plugins.ArtifactInfo
	for _, a := range r.Artifacts() {
		if a.Name == accountsArtifact {
			accounts = append(accounts, a)
		}
	}
	out := plugins.DiffDigests(map[string]plugins.Digest{accountsArtifact: live}, accounts)
	foreign, err := s.overtaken(ctx, run)
	if err != nil {
		return nil, classify(ctx, err)
	}
	for i := range out {
		want, err := readRecords(ctx, r, accountsArtifact)
		if err != nil {
			return nil, err
		}
		out[i].Detail, out[i].Foreign = diffRecords(want, have, accountLabel), foreign
	}
	return out, nil
}

// unorderedIn lists the table artifacts that were written without keys.
func unorderedIn(r plugins.ArtifactReader) map[string]bool {
	m := map[string]bool{}
	for _, a := range r.Artifacts() {
		if a.Form == plugins.Unordered {
			m[a.Name] = true
		}
	}
	return m
}

func definitionLabel(key string) string {
	p := append(strings.Split(key, "\x00"), "", "", "", "")
	return (&object{Kind: p[0], Schema: p[1], Name: p[2], Type: p[3]}).label()
}

// accountLabel names the account a privilege row belongs to.
func accountLabel(key string) string {
	p := append(strings.Split(key, "\x00"), "", "")
	return p[0] + " of '" + p[2] + "'@'" + p[1] + "'"
}

// diffRecords names what is missing, extra or changed in have.
func diffRecords(want, have []record, label func(string) string) string {
	m := make(map[string]string, len(have))
	for _, r := range have {
		m[string(r.key)] = string(r.value)
	}
	var out []string
	for _, r := range want {
		v, ok := m[string(r.key)]
		delete(m, string(r.key))
		switch {
		case !ok:
			out = append(out, "missing "+label(string(r.key)))
		case v != string(r.value):
			out = append(out, "changed "+label(string(r.key)))
		}
	}
	for k := range m {
		out = append(out, "extra "+label(k))
	}
	slices.Sort(out)
	return brief(out)
}
