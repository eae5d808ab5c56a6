package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// ErrKilled is what a Memory answers once the point set by a KillAfter method
// is reached: to the plugin it looks like a store that went away for good.
var ErrKilled = errors.New("killed by the test")

// A piece of an Ordered or Unordered artifact holds at most maxPiece records
// and is cut once it holds maxPieceBytes.
const (
	maxPiece      = 64
	maxPieceBytes = 1 << 20
)

// Memory is a store that lives in memory: what a plugin writes into it can be
// read back, in pieces, verified. It is strict where a real store is strict
// (order of keys, one artifact per name, forms, every Create committed or
// aborted) and can be told to fail at a chosen moment. Safe for concurrent use.
type Memory struct {
	mu        sync.Mutex
	artifacts map[string]*stored
	open      map[string]bool
	previous  *Memory
	budget    budget
	opened    int
	spill     *os.File // holds the pieces' data, when it is not to be held in memory
	spilled   int64
}

type stored struct {
	info   plugins.ArtifactInfo
	pieces []piece
	reused bool
	shared int // pieces taken over by SharePieces
}

type piece struct {
	info plugins.PieceInfo
	data []byte // records: varint key length, key, varint value length, value; or the bytes of a file
	want plugins.Digest
	size int   // of data
	at   int64 // where data stands in the spill file
}

// budget counts down to the moment at which a Memory fails; negative: never.
// dead: that moment has come, and nothing works any more.
type budget struct {
	artifacts, records int
	dead               bool
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{artifacts: map[string]*stored{}, open: map[string]bool{}, budget: budget{artifacts: -1, records: -1}}
}

// After makes the artifacts of prev available to Reuse, as the previous backup
// of the same unit.
func (m *Memory) After(prev *Memory) *Memory { m.previous = prev; return m }

// OnDisk keeps the data in a file of that directory from now on, for tests with much of it.
func (m *Memory) OnDisk(dir string) (*Memory, error) {
	f, err := os.CreateTemp(dir, "spill-*")
	m.spill = f
	return m, err
}

// KillAtArtifact makes every call fail with ErrKilled once n artifacts were
// committed (writing) or opened (reading), counted from now.
func (m *Memory) KillAtArtifact(n int) *Memory { return m.setBudget(budget{artifacts: n, records: -1}) }

// KillAtRecord makes every call fail with ErrKilled once n records were put
// or read, counted from now; 64 KiB of a File count as one record.
func (m *Memory) KillAtRecord(n int) *Memory { return m.setBudget(budget{artifacts: -1, records: n}) }

// Heal ends what KillAtArtifact or KillAtRecord began.
func (m *Memory) Heal() *Memory { return m.setBudget(budget{artifacts: -1, records: -1}) }

func (m *Memory) setBudget(b budget) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.budget = b
	return m
}

// Corrupt damages the n-th piece (from 0) of an artifact, so that reading it fails
// with plugins.ErrCorrupt. It reports whether there is such a piece.
func (m *Memory) Corrupt(name string, n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.artifacts[name]
	if s == nil || n >= len(s.pieces) || len(s.pieces[n].data) == 0 { // also false for data on disk
		return false
	}
	d := bytes.Clone(s.pieces[n].data)
	d[len(d)/2] ^= 0x40
	s.pieces[n].data = d
	return true
}

// Clone copies the store: faults set in the copy leave the original alone.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMemory()
	for n, s := range m.artifacts {
		c.artifacts[n] = &stored{info: s.info, pieces: slices.Clone(s.pieces), reused: s.reused}
	}
	return c
}

// Unfinished names the artifacts that were created and neither committed nor aborted.
func (m *Memory) Unfinished() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for n := range m.open {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Reused names the artifacts taken over by Reuse.
func (m *Memory) Reused() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for n, s := range m.artifacts {
		if s.reused {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// Opens is how often an artifact, or some of its pieces, was opened for reading.
func (m *Memory) Opens() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened
}

// SharedPieces is how many pieces of an artifact were taken over by SharePieces.
func (m *Memory) SharedPieces(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.artifacts[name]; s != nil {
		return s.shared
	}
	return 0
}

// PieceCount is the number of pieces of an artifact, of any form.
func (m *Memory) PieceCount(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.artifacts[name]; s != nil {
		return len(s.pieces)
	}
	return 0
}

// Create implements plugins.ArtifactWriter.
func (m *Memory) Create(ctx context.Context, a plugins.Artifact) (plugins.RecordWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.boundary(false); err != nil {
		return nil, err
	}
	switch {
	case a.Name == "" || len(a.Name) > 1024 || strings.ContainsRune(a.Name, 0):
		return nil, fmt.Errorf("artifact name %q is not 1 to 1024 bytes without NUL: %w", a.Name, plugins.ErrData)
	case a.Form != plugins.Ordered && a.Form != plugins.Unordered && a.Form != plugins.File:
		return nil, fmt.Errorf("artifact %q: form %q is none: %w", a.Name, a.Form, plugins.ErrData)
	case a.Pin == "":
		return nil, fmt.Errorf("artifact %q carries no pin: %w", a.Name, plugins.ErrData)
	case m.artifacts[a.Name] != nil || m.open[a.Name]:
		return nil, fmt.Errorf("artifact %q is written twice: %w", a.Name, plugins.ErrData)
	}
	m.open[a.Name] = true
	w := &writer{m: m, ctx: ctx, s: &stored{}}
	w.s.info.Artifact = a
	return w, nil
}

// Reuse implements plugins.ArtifactWriter with the store given to After.
func (m *Memory) Reuse(ctx context.Context, a plugins.Artifact) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return a.Identity != "" && m.refer(a, func(i plugins.ArtifactInfo) bool { return i.Identity == a.Identity }), nil
}

// Share implements plugins.Sharer with the store given to After.
func (m *Memory) Share(ctx context.Context, a plugins.Artifact, d plugins.Digest) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return m.refer(a, func(i plugins.ArtifactInfo) bool { return i.Form == a.Form && i.Digest == d }), nil
}

func (m *Memory) refer(a plugins.Artifact, same func(plugins.ArtifactInfo) bool) bool {
	if m.previous == nil {
		return false
	}
	m.previous.mu.Lock()
	s := m.previous.artifacts[a.Name]
	m.previous.mu.Unlock()
	if s == nil || !same(s.info) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := s.info
	info.Artifact = a
	m.artifacts[a.Name] = &stored{info: info, pieces: s.pieces, reused: true}
	return true
}

// Artifacts implements plugins.ArtifactReader.
func (m *Memory) Artifacts() []plugins.ArtifactInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]plugins.ArtifactInfo, 0, len(m.artifacts))
	for _, s := range m.artifacts {
		out = append(out, s.info)
	}
	slices.SortFunc(out, func(a, b plugins.ArtifactInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Pieces implements plugins.ArtifactReader.
func (m *Memory) Pieces(ctx context.Context, name string) ([]plugins.PieceInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.artifacts[name]
	switch {
	case s == nil:
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	case s.info.Form != plugins.Ordered:
		return nil, fmt.Errorf("artifact %q is not ordered: %w", name, plugins.ErrUnsupported)
	}
	out := make([]plugins.PieceInfo, len(s.pieces))
	for i, p := range s.pieces {
		out[i] = p.info
	}
	return out, nil
}

// Open implements plugins.ArtifactReader.
func (m *Memory) Open(ctx context.Context, name string) (plugins.RecordReader, error) {
	return m.reader(ctx, name, 0, -1)
}

// OpenPieces implements plugins.ArtifactReader.
func (m *Memory) OpenPieces(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	if from < 0 || to < from {
		return nil, fmt.Errorf("artifact %q: no pieces %d to %d: %w", name, from, to, plugins.ErrNotFound)
	}
	return m.reader(ctx, name, from, to)
}

func (m *Memory) reader(ctx context.Context, name string, from, to int) (plugins.RecordReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.boundary(false); err != nil {
		return nil, err
	}
	s := m.artifacts[name]
	if s == nil {
		return nil, fmt.Errorf("artifact %q: %w", name, plugins.ErrNotFound)
	}
	if to < 0 {
		to = len(s.pieces)
	} else if s.info.Form != plugins.Ordered || to > len(s.pieces) {
		return nil, fmt.Errorf("artifact %q: no pieces %d to %d: %w", name, from, to, plugins.ErrNotFound)
	}
	if err := m.boundary(true); err != nil {
		return nil, err
	}
	m.opened++
	return &reader{m: m, ctx: ctx, name: name, form: s.info.Form, pieces: s.pieces[from:to]}, nil
}

// spend takes n records off the budget.
func (m *Memory) spend(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.budget.dead = m.budget.dead || m.budget.records == 0; m.budget.dead {
		return ErrKilled
	}
	if m.budget.records > 0 {
		m.budget.records = max(0, m.budget.records-n)
	}
	return nil
}

// boundary is called with the lock held where an artifact begins or ends, and
// takes it off the budget when count is set.
func (m *Memory) boundary(count bool) error {
	if m.budget.dead = m.budget.dead || m.budget.artifacts == 0; m.budget.dead {
		return ErrKilled
	}
	if count && m.budget.artifacts > 0 {
		m.budget.artifacts--
	}
	return nil
}
