package cassandra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// findings is what one unit's comparison after a restore has found. All units tell each other, because a table
// that is to be repaired is emptied on all nodes: all units must take part, or none.
type findings struct {
	Number int             `json:"number"`           // how often this unit has compared in this pass
	Differ map[string]bool `json:"differ,omitempty"` // artifact → somebody else wrote
}

// shared adds to a unit's differences what the other units have found after the same restore. A unit that
// does not compare is not waited for.
func (s *session) shared(ctx context.Context, run plugins.Run, mine []plugins.Difference) ([]plugins.Difference, error) {
	if len(s.cfg.target.Members) == 1 || run.Operation == plugins.OpInspect || run.Scratch == "" {
		return mine, nil
	}
	if _, err := os.Stat(memoryFile(run)); errors.Is(err, os.ErrNotExist) { // nothing was restored
		return mine, nil
	}
	p, _, err := (&claim{s, run}).latest(ctx)
	if err != nil {
		return nil, err
	}
	said, err := p.findings(ctx)
	if err != nil {
		return nil, err
	}
	own := findings{Number: said[p.me].Number + 1, Differ: map[string]bool{}}
	for _, d := range mine {
		if !strings.HasPrefix(d.Detail, toldBy) {
			own.Differ[d.Artifact] = d.Foreign
		}
	}
	p.live(ctx)
	defer p.leave()
	if err := p.put(ctx, "findings", own); err != nil {
		return nil, err
	}
	for seen := time.Now(); ; {
		if said, err = p.findings(ctx); err != nil {
			return nil, err
		}
		var missing []string
		for _, m := range p.members {
			if said[m].Number < own.Number {
				missing = append(missing, m)
			}
		}
		if len(missing) == 0 {
			break
		}
		alive, err := p.get(ctx, "alive")
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(missing, func(m string) bool { _, ok := alive[m]; return ok }) {
			seen = time.Now()
		}
		if time.Since(seen) > aloneAfter {
			run.Log.Info("other nodes' units do not compare now", "units", strings.Join(missing, ", "))
			break
		}
		if err := plugins.Sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
	for _, m := range p.members {
		for a, foreign := range said[m].Differ {
			if m != p.me && !slices.ContainsFunc(mine, func(d plugins.Difference) bool { return d.Artifact == a }) {
				mine = append(mine, plugins.Difference{Artifact: a, Kind: "changed", Foreign: foreign, Detail: toldBy + m})
			}
		}
	}
	return mine, nil
}

// toldBy begins the detail of what another unit has found.
const toldBy = "found by the unit of "

func (p *pass) findings(ctx context.Context) (map[string]findings, error) {
	rows, err := p.get(ctx, "findings")
	if err != nil {
		return nil, err
	}
	out := map[string]findings{}
	for m, b := range rows {
		var f findings
		if err := json.Unmarshal(b, &f); err != nil {
			return nil, fmt.Errorf("%s: findings of %s: %w", p.c.s.cfg.target, m, err)
		}
		out[m] = f
	}
	return out, nil
}
