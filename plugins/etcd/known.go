package etcd

import (
	"sync"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A revision names one state of all keys: every transaction that writes raises
// it, and nothing else changes keys (https://etcd.io/docs/v3.4/learning/data_model/).
// So what a comparison of the keys with a backup has found need not be found
// again while the cluster is at the revision at which it was found.

// moment is a state of a cluster's keys. Term and index of its log tell a
// cluster that was made anew, and counts from the beginning, from the old one.
type moment struct {
	cluster  uint64
	revision int64
	term     uint64
}

// found is how the keys at a moment differ from the artifact with a digest.
type found struct {
	at    moment
	index uint64 // of the log, when it was found
	want  plugins.Digest
	keys  tally
	bytes int64
}

// memory keeps, for each target, what was found last. It outlives sessions.
type memory struct {
	mu   sync.Mutex
	last map[string]found
}

func (m *memory) note(target string, f found) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[string]found{}
	}
	m.last[target] = f
}

// recall says how the keys of a view differ from an artifact, if that is known.
func (m *memory) recall(target string, v *view, want plugins.Digest) (found, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.last[target]
	return f, ok && f.at == v.moment() && v.index >= f.index && f.want == want
}

// equal gives the digest of the keys of a view, if they were found equal to those of a backup.
func (m *memory) equal(target string, v *view) (plugins.Digest, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.last[target]
	return f.want, ok && f.at == v.moment() && v.index >= f.index && f.keys == tally{}
}

func (v *view) moment() moment { return moment{v.cluster, v.revision, v.term} }

// keysOf is the digest of a backup's keys.
func keysOf(r plugins.ArtifactReader) plugins.Digest {
	for _, a := range r.Artifacts() {
		if a.Name == artKeys {
			return a.Digest
		}
	}
	return plugins.Digest{}
}
