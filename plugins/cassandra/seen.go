package cassandra

import (
	"sync"
	"time"
)

// seen is what the sessions of one worker have learned of its nodes and need not ask again.
type seen struct {
	mu       sync.Mutex
	pins     map[string]pinned
	answered map[string]time.Time
}

// pinned is the moment of a safety backup.
type pinned struct {
	epoch      uint64
	generation int64 // of the server process: counters begin anew with it
	writes     map[tableName]int64
}

// place names a node among those of the worker.
func (s *session) place() string {
	return s.cfg.target.String() + " " + s.cfg.self.Name + " " + s.cfg.self.Address + " " + s.cfg.jmx + s.cfg.jolokia + s.cfg.nodetool
}

func (k *seen) put(place string, p pinned) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pins == nil {
		k.pins = map[string]pinned{}
	}
	k.pins[place] = p
}

func (k *seen) pin(place string) (pinned, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, ok := k.pins[place]
	return p, ok
}

// fresh is how long an answer by JMX counts as one.
const fresh = 2 * time.Minute

// heard notes that the node has answered by JMX.
func (k *seen) heard(place string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.answered == nil {
		k.answered = map[string]time.Time{}
	}
	k.answered[place] = time.Now()
}

// answers says whether the node has answered by JMX a moment ago.
func (k *seen) answers(place string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.answered[place]) < fresh
}
