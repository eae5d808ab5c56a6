package zookeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	restorePasses = 6
	maxPadding    = 2_000_000 // children created and removed to move the counters of one ensemble
)

// Restore makes the live tree equal to the backup. Everything is read and
// checked before the first write. What is equal is not touched: when all is
// equal, only the product's own epochPath is written.
func (s *session) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{Consistency: "multis of up to 1000 changes, parents before children, removals last"}
	conn, m, err := s.dial(ctx)
	if err != nil {
		return rep, err
	}
	defer conn.Close()
	a := &applier{s: s, run: run, conn: conn, group: maxGroup, rep: &rep}
	var acls *known
	for pass := 0; ; pass++ {
		done, k, err := s.pass(ctx, a, m, r, acls, pass)
		if err != nil || done {
			a.finish()
			return rep, err
		}
		acls = k
	}
}

// pass compares and carries out what it found; true when nothing is left to do or to be gained.
func (s *session) pass(ctx context.Context, a *applier, m plugins.Member, r plugins.ArtifactReader, acls *known, pass int) (bool, *known, error) {
	live, err := s.walk(ctx, a.run.Scratch, walkOptions{acls: true, known: acls, files: true})
	if err != nil {
		return false, nil, err
	}
	defer live.spool.Close()
	if err := live.complete(s); err != nil {
		return false, nil, err
	}
	sp := spool.New(a.run.Scratch, memoryBound)
	defer sp.Close()
	d, err := s.compare(ctx, r, live, sp)
	if err != nil {
		return false, nil, err
	}
	// Claimed even when there is nothing to do: an attempt that may still wake up must find itself overtaken.
	if !a.claimed {
		if err := a.claim(ctx, m); err != nil {
			return false, nil, err
		}
	}
	switch {
	case pass == restorePasses:
		a.rep.Warnings = append(a.rep.Warnings, "somebody else kept writing during the restore: "+a.conflict)
		a.disturbed = a.conflict != ""
	case d.structure():
		return false, live.remember(), a.structure(ctx, d, live, sp)
	case len(d.pads) > 0 && !a.padded:
		a.padded = true
		return false, live.remember(), a.pad(ctx, d.pads)
	}
	last := a.zxid
	if last == 0 {
		last = live.zxid
	}
	a.rep.Position = position(live.zxid)
	return true, nil, remember(a.run, memory{Zxid: last, Disturbed: a.disturbed})
}

// remembered lies in the scratch directory: the last transaction of the restore.
const remembered = "zookeeper-restored.json"

type memory struct {
	Zxid int64 `json:"zxid"`
	// Disturbed: the restore ended while the server still refused its writes because somebody else
	// changed the same znodes; what differs is theirs.
	Disturbed bool `json:"disturbed,omitempty"`
}

func remember(run plugins.Run, m memory) error {
	if run.Scratch == "" {
		return nil
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(run.Scratch, remembered), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember what was restored: %w", err)
	}
	return nil
}

// recall gives what this run's restore noted; false when there was none.
func recall(run plugins.Run) (memory, bool, error) {
	if run.Scratch == "" {
		return memory{}, false, nil
	}
	b, err := os.ReadFile(filepath.Join(run.Scratch, remembered))
	if errors.Is(err, os.ErrNotExist) {
		return memory{}, false, nil
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return memory{}, false, fmt.Errorf("%s: %w", remembered, err)
	}
	return m, true, nil
}

// request turns a wanted znode into the request that creates it.
func (w wanted) request(acl []zkwire.ACL, data []byte) zkwire.Request {
	switch {
	case masked(w.path):
		data = []byte("count=0,bytes=0") // the server puts in the true figures
	case w.null:
		data = nil
	case data == nil:
		data = []byte{}
	}
	switch {
	case w.kind == container:
		return zkwire.CreateContainer(w.path, data, acl)
	case w.kind > 0:
		return zkwire.CreateTTL(w.path, data, acl, int64(w.kind))
	}
	return zkwire.Create(w.path, data, acl, 0)
}
