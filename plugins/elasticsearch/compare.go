package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Compare reads all documents and definitions and says where they differ from the backup.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	c, err := readContent(ctx, r)
	if err != nil {
		return nil, err
	}
	n, err := s.lastNote(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	live, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	if c.mode == modeExport {
		if err := live.strip(); err != nil {
			return nil, err
		}
	}
	// Only what this very run has left as it should be can have been changed by somebody else.
	ours := n.Finished && n.Epoch == run.Epoch
	var out []plugins.Difference
	for name, d := range c.indices {
		x := live.Indices[name]
		at, known := n.Seen[name]
		if x == nil {
			out = append(out, plugins.Difference{Artifact: indexPrefix + name, Kind: "missing", Foreign: ours && known && at.Life != ""})
			continue
		}
		why, err := s.differs(ctx, run, c, x, d, n, true)
		if err != nil {
			return nil, err
		}
		if why == "" {
			continue
		}
		artifact := documentsPrefix + name
		definition := strings.HasPrefix(why, "definition")
		if definition {
			artifact = indexPrefix + name
		}
		moved := x.life() != at.Life || x.position() != at.Position
		out = append(out, plugins.Difference{Artifact: artifact, Kind: "changed", Detail: why, Foreign: ours && known && (moved || definition && at.Right)})
	}
	for name := range live.Indices {
		if c.indices[name] == nil {
			out = append(out, plugins.Difference{Artifact: indexPrefix + name, Kind: "extra", Foreign: ours})
		}
	}
	want, have := map[string][]byte{}, n.prior(live.Objects)
	for k, v := range c.objects {
		want[k] = v
	}
	for k, v := range c.streams {
		want[kindStream+"/"+k] = v
	}
	for k, v := range live.Streams {
		have[kindStream+"/"+k] = v
	}
	out = append(out, differentObjects(want, have, ours, n.Wrong)...)
	slices.SortFunc(out, func(a, b plugins.Difference) int { return strings.Compare(a.Artifact+a.Kind, b.Artifact+b.Kind) })
	return out, nil
}

func differentObjects(want, have map[string][]byte, ours bool, wrong []string) []plugins.Difference {
	type group struct {
		kind    string
		foreign bool
	}
	groups := map[group][]string{}
	put := func(kind, key string) {
		g := group{kind, ours && !slices.Contains(wrong, key)}
		groups[g] = append(groups[g], key)
	}
	for k, w := range want {
		if h, ok := have[k]; !ok {
			put("missing", k)
		} else if string(h) != string(w) {
			put("changed", k)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			put("extra", k)
		}
	}
	var out []plugins.Difference
	for g, keys := range groups {
		slices.Sort(keys)
		out = append(out, plugins.Difference{Artifact: clusterName, Kind: g.kind, Detail: some(keys), Foreign: g.foreign})
	}
	return out
}

// lastNote is what the newest claim remembers.
func (s *session) lastNote(ctx context.Context) (note, error) {
	all, err := s.claims(ctx)
	if err != nil || len(all) == 0 {
		return note{}, err
	}
	return all[len(all)-1].note, nil
}

// Plan says what a restore would do.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var p plugins.Plan
	c, err := readContent(ctx, r)
	if err != nil {
		return p, err
	}
	n, err := s.lastNote(ctx)
	if err != nil {
		return p, err
	}
	if err := s.refresh(ctx); err != nil {
		return p, err
	}
	live, err := s.state(ctx)
	if err != nil {
		return p, err
	}
	d, err := s.difference(ctx, run, c, live, n, false)
	if err != nil {
		return p, err
	}
	p.Unchanged, p.Add, p.Remove = slices.Clone(d.same), slices.Clone(d.add), slices.Concat(d.extra, d.removeObjects)
	for _, u := range d.change {
		p.Change = append(p.Change, u+" ("+d.why[u]+")")
	}
	p.Change = slices.Concat(p.Change, d.writeObjects, d.settings)
	p.Write = d.bytes
	if d.empty() {
		return p, nil
	}
	for _, err := range []error{s.compatible(c), s.membersThere(ctx, c, live, d), s.streamsAllowed(ctx, c, d)} {
		if err != nil {
			p.Refusals = append(p.Refusals, err.Error())
		}
	}
	if c.mode == modeSnapshot && len(d.restore()) > 0 {
		// Once as staged files in path.repo, and once in the nodes' own directories.
		p.Space = 2 * d.bytes
		at, err := s.findPlace(ctx)
		switch {
		case errors.Is(err, errNoPlace):
			p.Refusals = append(p.Refusals, fmt.Sprintf("this backup is a snapshot, and there is %s: set path.repo on every node to a shared directory", err))
		case err != nil:
			return p, err
		default:
			if p.Free = freeOf(at.local); p.Free > 0 && p.Free < d.bytes {
				p.Refusals = append(p.Refusals, fmt.Sprintf("%d bytes are needed in %s and %d are free: make room", d.bytes, at.local, p.Free))
			}
		}
	}
	for _, k := range live.Foreign {
		p.Warnings = append(p.Warnings, "cluster metadata of the kind "+k+" is not known to this version and stays as it is")
	}
	return p, nil
}
