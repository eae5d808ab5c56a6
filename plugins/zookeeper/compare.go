package zookeeper

import (
	"context"
	"fmt"
	"path"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// difference reads the live tree and compares it with the backup.
func (s *session) difference(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (*delta, *tree, error) {
	live, err := s.walk(ctx, run.Scratch, walkOptions{acls: true, quiet: true, files: true})
	if err != nil {
		return nil, nil, err
	}
	defer live.spool.Close()
	if err := live.complete(s); err != nil {
		return nil, nil, err
	}
	sp := spool.New(run.Scratch, memoryBound)
	defer sp.Close()
	d, err := s.compare(ctx, r, live, sp)
	return d, live, err
}

// Compare says where the live tree differs. A TTL or container znode that is
// missing was lawfully removed by the server; a counter that stands higher is lawful.
func (s *session) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	d, live, err := s.difference(ctx, run, r)
	if err != nil {
		return nil, err
	}
	last, restored, err := recall(run)
	if err != nil {
		return nil, err
	}
	type group struct {
		artifact, kind string
		foreign        bool
	}
	groups := map[group][]string{}
	put := func(artifact, kind, p string, zxid int64) {
		g := group{artifact, kind, restored && (last.Disturbed || zxid > last.Zxid)}
		groups[g] = append(groups[g], p)
	}
	lapsed := map[string]bool{}
	for _, p := range d.lapsed {
		lapsed[p] = true
	}
	for _, w := range d.add {
		if st, ok := live.ephemerals[w.path]; ok {
			put(treeName, "changed", w.path, st.Czxid)
		} else if !lapsed[w.path] {
			put(treeName, "missing", w.path, live.lost(w.path))
		}
	}
	for _, w := range d.set {
		zxid := w.live.stat.mzxid
		if !w.setData {
			// No transaction number tells of an access list alone. But the restore ended only after it
			// had read every one of them as it should be, or after somebody else was seen to write.
			zxid = last.Zxid + 1
		}
		put(treeName, "changed", w.path, zxid)
	}
	for _, n := range d.first {
		put(kindsName, "changed", n.path, n.stat.czxid)
	}
	for _, n := range d.extra {
		put(treeName, "extra", n.path, n.stat.czxid)
	}
	able, _ := affordable(d.pads)
	for _, p := range able {
		put(statsName, "changed", p.path, live.nodes[p.path].stat.czxid)
	}
	var out []plugins.Difference
	for _, a := range []string{treeName, kindsName, statsName} {
		for _, k := range []string{"missing", "changed", "extra"} {
			for _, f := range []bool{false, true} {
				if p := groups[group{a, k, f}]; len(p) > 0 {
					out = append(out, plugins.Difference{Artifact: a, Kind: k, Detail: some(p), Foreign: f})
				}
			}
		}
	}
	return out, nil
}

// lost is the last change to the children of the nearest znode above p that is still there.
func (t *tree) lost(p string) int64 {
	for p != "/" {
		p = path.Dir(p)
		if n := t.nodes[p]; n != nil {
			return n.stat.pzxid
		}
	}
	return 0
}

// affordable divides the counters into those a restore moves and those that are too far back.
func affordable(pads []padding) (able, not []padding) {
	left := uint32(maxPadding)
	for _, p := range pads {
		if n := p.want - p.have; n <= left {
			left -= n
			able = append(able, p)
		} else {
			not = append(not, p)
		}
	}
	return able, not
}

func (p padding) inexact() plugins.Inexact {
	return plugins.Inexact{
		What: "the next sequence number below " + p.path,
		Why:  fmt.Sprintf("its counter stood at %d, stands at %d, and is moved by one step at a time, %d at most: disaster recovery sets it at once", p.want, p.have, maxPadding),
	}
}

// Plan says which znodes a restore would change.
func (s *session) Plan(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Plan, error) {
	var p plugins.Plan
	d, live, err := s.difference(ctx, run, r)
	if err != nil {
		return p, err
	}
	touched := map[string]bool{}
	for _, w := range d.add {
		touched[w.path] = true
		if n := live.nodes[w.path]; n != nil {
			p.Change = append(p.Change, w.path)
		} else {
			p.Add = append(p.Add, w.path)
		}
	}
	for _, w := range d.set {
		touched[w.path] = true
		p.Change = append(p.Change, w.path)
	}
	for _, n := range d.extra {
		p.Remove = append(p.Remove, n.path)
	}
	for _, n := range d.first {
		if !d.has(live, n.path) {
			p.Remove = append(p.Remove, n.path)
		}
	}
	for _, n := range live.sorted() {
		if n.mark && !touched[n.path] {
			p.Unchanged = append(p.Unchanged, n.path)
		}
	}
	p.Write, p.Space = d.bytes, d.bytes
	if len(d.gone) > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("%d ephemeral znodes stand in the way or below znodes that must go, and would be removed: %s", len(d.gone), some(d.gone)))
	}
	_, not := affordable(d.pads)
	for _, x := range not {
		p.Inexact = append(p.Inexact, x.inexact())
	}
	if !live.kindsKnown {
		p.Warnings = append(p.Warnings, "types of the live znodes are unknown and not compared: name data_dir of a server on this VM in the estate file")
	}
	if len(s.auth) == 0 && !d.empty() {
		p.Warnings = append(p.Warnings, "there are no credentials: znodes whose access list forbids it cannot be written: give the super user's in auth_file")
	}
	return p, nil
}
