// Package zkfile reads and writes the files a ZooKeeper server keeps in its
// version-2 directory: snapshots and transaction logs (FileSnap, FileTxnLog,
// DataTree and zookeeper.jute of Apache ZooKeeper 3.4 to 3.9). They hold what no client
// can see: the types of znodes.
package zkfile

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	snapMagic  = 0x5a4b534e // "ZKSN"
	logMagic   = 0x5a4b4c47 // "ZKLG"
	version    = 2
	maxBuffer  = 64 << 20 // bytes of one field or record; servers accept 1 MB by default
	openACL    = -1       // reference to the list world:anyone:cdrwa
	ttlMask    = 0xff << 56
	ttlValue   = 1<<40 - 1
	containers = math.MinInt64
)

// ErrFormat is wrapped by what is said about a file that is damaged, unfinished or of an unknown kind.
var ErrFormat = errors.New("not a whole file of a known format")

// Node is a znode as the server keeps it.
type Node struct {
	Path                        string
	Data                        []byte // nil: null
	ACL                         []zkwire.ACL
	Czxid, Mzxid, Ctime, Mtime  int64
	Version, Cversion, Aversion int32 // Cversion counts the children ever created
	Owner                       int64 // see Ephemeral, Container and TTL
	Pzxid                       int64
}

// Container says whether the owner field stands for a container (EphemeralType).
func Container(owner int64) bool { return owner == containers }

// TTL is the time to live in ms that the owner field stands for; 0: none (EphemeralType).
func TTL(owner int64) int64 {
	if uint64(owner)&ttlMask == ttlMask {
		return owner & ttlValue
	}
	return 0
}

// Ephemeral says whether the owner field is a session's id.
func Ephemeral(owner int64) bool { return owner != 0 && !Container(owner) && TTL(owner) == 0 }

// Owner is the owner field of a container or TTL znode.
func Owner(container bool, ttl int64) int64 {
	switch {
	case container:
		return containers
	case ttl > 0:
		return int64(uint64(ttlMask) | uint64(ttl)&ttlValue)
	}
	return 0
}

// Event is what a transaction did to a znode's type or access list.
type Event struct {
	Zxid     int64
	Path     string
	ACL      []zkwire.ACL
	Create   bool  // otherwise the access list was replaced
	Owner    int64 // of a created znode
	Aversion int32 // after the transaction
}

// file is a snapshot or log with the zxid in its name.
type file struct {
	path string
	zxid int64
}

// list finds the files of one kind, ascending by zxid.
func list(dir, prefix string) ([]file, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []file
	for _, e := range es {
		x, ok := strings.CutPrefix(e.Name(), prefix+".")
		x = strings.TrimSuffix(x, ".gz")
		zxid, err := strconv.ParseUint(x, 16, 64)
		if !ok || err != nil {
			continue
		}
		out = append(out, file{filepath.Join(dir, e.Name()), int64(zxid)})
	}
	slices.SortFunc(out, func(a, b file) int { return int(min(1, max(-1, a.zxid-b.zxid))) })
	return out, nil
}

// Read hands over the newest whole snapshot of snapDir and then the events of all logs of logDir
// that may follow it, and says up to which zxid they reach. A record at the end of the newest log that is not
// whole yet ends the reading. Events may repeat what the snapshot holds.
func Read(snapDir, logDir string, node func(Node) error, event func(Event) error) (last int64, err error) {
	snaps, err := list(snapDir, "snapshot")
	if err != nil {
		return 0, err
	}
	found := false
	var bad error
	for _, s := range slices.Backward(snaps) {
		// Read twice: first whether it is whole, so that half of a damaged one is never handed over.
		err := ReadSnapshot(s.path, func(Node) error { return nil })
		if err == nil {
			err = ReadSnapshot(s.path, node)
			if err != nil {
				return 0, err
			}
			last, found = s.zxid, true
			break
		}
		bad = errors.Join(bad, err)
	}
	if !found && len(snaps) > 0 {
		return 0, bad
	}
	logs, err := list(logDir, "log")
	if err != nil {
		return 0, err
	}
	first := 0
	for i, l := range logs {
		if l.zxid <= last+1 {
			first = i
		}
	}
	if !found && len(logs) > 0 && logs[0].zxid&math.MaxUint32 > 1 {
		return 0, fmt.Errorf("%s: the log begins at 0x%x and there is no snapshot: %w", logDir, uint64(logs[0].zxid), ErrFormat)
	}
	for i, l := range logs[min(first, len(logs)):] {
		z, err := ReadLog(l.path, event)
		last = max(last, z)
		if err != nil && (i < len(logs[first:])-1 || !errors.Is(err, ErrFormat)) {
			return last, err
		}
	}
	return last, nil
}
