package zookeeper

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

const (
	ownPath    = "/cso-backup" // the product's own: outside backup, digest and diff
	epochPath  = ownPath + "/epoch"
	holderPath = ownPath + "/holder"
	zkRoot     = "/zookeeper"
	quotaPath  = zkRoot + "/quota"
	configPath = zkRoot + "/config"
	statsNode  = "zookeeper_stats" // usage figures below quotaPath, kept by the server
	padName    = "cso-backup-padding"
)

// owned says which znodes are no data: they are the server's or the product's own.
func owned(p string) bool {
	return p == zkRoot || p == quotaPath || within(p, configPath) || within(p, ownPath)
}

// masked says whose data the server computes.
func masked(p string) bool { return strings.HasPrefix(p, quotaPath+"/") && path.Base(p) == statsNode }

func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

func join(parent, name string) string {
	if parent == "/" {
		return "/" + name
	}
	return parent + "/" + name
}

// kind is a znode's type, which clients cannot see: 0 for an ordinary one, container, or a time to live in ms.
type kind int64

const container kind = -1

// encode is "container", "ttl MILLISECONDS", or empty for an ordinary znode.
func (k kind) encode() string {
	switch {
	case k == container:
		return "container"
	case k > 0:
		return fmt.Sprintf("ttl %d", int64(k))
	}
	return ""
}

// node is a znode as it was read. There may be millions: it holds what is needed and no more.
type node struct {
	path  string
	stat  statsRecord
	data  spool.Ref
	kind  kind
	acl   int32 // index in the table; unknownACL until read
	pass  int16 // last reading that saw it
	null  bool  // null is not the same as empty
	typed bool  // kind is known
	mark  bool
}

const unknownACL = -1

// tree is what was read of an ensemble.
type tree struct {
	nodes      map[string]*node
	ephemerals map[string]zkwire.Stat
	acls       *aclTable
	spool      *spool.Spool
	denied     []string // could not be read
	kindsKnown bool
	zxid       int64 // transaction up to which the reading is good
	quiet      bool
	passes     int
	busy       []string // changed between the last two passes
	member     string
}

// sorted lists the znodes by path: a parent stands before its children.
func (t *tree) sorted() []*node {
	out := make([]*node, 0, len(t.nodes))
	for _, n := range t.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *node) int { return strings.Compare(a.path, b.path) })
	return out
}

// aclTable keeps each different access list once, in the form of the backup.
type aclTable struct {
	index map[string]int32
	text  []string
	list  [][]zkwire.ACL
}

func newACLTable() *aclTable { return &aclTable{index: map[string]int32{}} }

const permLetters = "rwcda"

// add returns the index of an access list.
func (t *aclTable) add(list []zkwire.ACL) int32 { return t.put(formatACL(list), list) }

func (t *aclTable) put(text string, list []zkwire.ACL) int32 {
	i, ok := t.index[text]
	if !ok {
		i = int32(len(t.text))
		t.index[text] = i
		t.text, t.list = append(t.text, text), append(t.list, list)
	}
	return i
}

// parse returns the index of an access list in the form of the backup.
func (t *aclTable) parse(text string) (int32, error) {
	if i, ok := t.index[text]; ok {
		return i, nil
	}
	var raw [][3]string
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return 0, fmt.Errorf("access list: %w", err)
	}
	var list []zkwire.ACL
	for _, e := range raw {
		a := zkwire.ACL{Scheme: e[1], ID: e[2]}
		for _, l := range e[0] {
			i := strings.IndexRune(permLetters, l)
			if i < 0 {
				return 0, fmt.Errorf("access list: unknown permission %q", l)
			}
			a.Perms |= 1 << i
		}
		list = append(list, a)
	}
	if formatACL(list) != text {
		return 0, fmt.Errorf("access list %q is not in canonical form", text)
	}
	return t.put(text, list), nil
}

// formatACL writes [["PERMISSIONS","SCHEME","ID"],…], the permissions as zkCli shows them.
func formatACL(list []zkwire.ACL) string {
	raw := make([][3]string, 0, len(list))
	for _, a := range list {
		var perms []byte
		for i := range len(permLetters) {
			if a.Perms&(1<<i) != 0 {
				perms = append(perms, permLetters[i])
			}
		}
		raw = append(raw, [3]string{string(perms), a.Scheme, a.ID})
	}
	b, err := json.Marshal(raw)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// appendRecord appends the value of a znode in the artifact `tree`: its access list, a newline, and
// '+' and the data, '-' for null data, or '~' for data that the server computes.
func appendRecord(b []byte, path, acl string, null bool, data []byte) []byte {
	b = append(b, acl...)
	b = append(b, '\n')
	switch {
	case masked(path):
		return append(b, '~')
	case null:
		return append(b, '-')
	}
	return append(append(b, '+'), data...)
}

// some names up to twenty of the paths.
func some(paths []string) string {
	const most = 20
	paths = slices.Sorted(slices.Values(paths))
	if len(paths) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(paths[:most], ", "), len(paths)-most)
	}
	return strings.Join(paths, ", ")
}
