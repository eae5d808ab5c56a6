package server

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Revision trees: every shard has one over the _rev of its documents, of depth
// 6 and branching factor 8, as MerkleTree::serialize writes them. Its hashes
// are comparable among simulators only: the real server uses another function.
const (
	treeDepth  = 6
	treeLeaves = 1 << (3 * treeDepth)
)

func hashBytes(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

func hashRevision(rev uint64) uint64 { return hashBytes(binary.BigEndian.AppendUint64(nil, rev)) }

// snapshotShard answers the batch's snapshot and the shard that the request names.
func (r *request) snapshotShard() (*batch, *store.Collection, string, error) {
	server := ""
	var err error
	if r.isCluster() {
		if r.node.role == roleCoordinator && (r.atLeast(3, 12, 10) || r.query.Get("DBserver") == "") {
			return nil, nil, "", fail(1475, "replication API is not supported on a coordinator").withCode(501)
		}
		if server, err = r.forward("DBserver"); err != nil {
			return nil, nil, "", err
		}
	}
	name := r.query.Get("collection")
	if name == "" {
		return nil, nil, "", fail(400, "invalid collection parameter")
	}
	b, ok := r.batch(r.query.Get("batchId"), server, 0)
	if !ok {
		return nil, nil, "", fail(1600, "replication context not found")
	}
	c, shard, err := r.dumpTarget(name, server)
	if err != nil {
		return nil, nil, "", fail(1203)
	}
	return b, c, shard, nil
}

func revisionTree(r *request) error {
	b, _, shard, err := r.snapshotShard()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return fail(1600)
	}
	return r.reply(200, tree(b.snapshot, shard, r.flag("onlyPopulated", false)))
}

type leaf struct {
	count int64
	hash  uint64
}

func tree(tx *store.Tx, shard string, onlyPopulated bool) *value.Object {
	var low, high uint64
	tx.Scan(shard, 0, func(rev uint64, _ []byte) bool {
		if low == 0 {
			low = rev
		}
		high = rev
		return true
	})
	shift := uint(20)
	for (high>>shift)-(low>>shift) >= treeLeaves {
		shift++
	}
	low = low >> shift << shift
	leaves := make([]leaf, treeLeaves)
	var all leaf
	last := -1
	tx.Scan(shard, 0, func(rev uint64, _ []byte) bool {
		i, h := int((rev-low)>>shift), hashRevision(rev)
		leaves[i].count++
		leaves[i].hash ^= h
		all.count++
		all.hash ^= h
		last = max(last, i)
		return true
	})
	nodes := []any{}
	for i, l := range leaves {
		switch {
		case l.count > 0 || !onlyPopulated:
			nodes = append(nodes, value.New("hash", l.hash, "count", l.count))
		case i < last:
			nodes = append(nodes, &value.Object{})
		}
	}
	return value.New("version", 0, "maxDepth", treeDepth,
		"rangeMax", store.EncodeRevision(low+treeLeaves<<shift), "rangeMin", store.EncodeRevision(low),
		"initialRangeMin", store.EncodeRevision(low), "count", all.count, "hash", all.hash, "nodes", nodes)
}

// rangeLimit is how many revisions one answer carries at most.
const rangeLimit = 50000

// revisionRanges is PUT revisions/ranges: the revisions that exist in each of the asked ranges.
func revisionRanges(r *request) error {
	b, _, shard, err := r.snapshotShard()
	if err != nil {
		return err
	}
	body, err := r.any()
	if err != nil {
		return err
	}
	ranges, ok := body.([]any)
	if !ok {
		return fail(400, "expected body to be array of range pairs")
	}
	resume := uint64(0)
	if s := r.query.Get("resume"); s != "" {
		if resume, err = store.DecodeRevision(s); err != nil {
			return fail(400, "%v", err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return fail(1600)
	}
	out, more, n := []any{}, uint64(0), 0
	for _, item := range ranges {
		pair := value.StringList(item)
		if len(pair) != 2 {
			return fail(400, "expected body to be array of range pairs")
		}
		from, err := store.DecodeRevision(pair[0])
		if err != nil {
			return fail(400, "%v", err)
		}
		to, err := store.DecodeRevision(pair[1])
		if err != nil {
			return fail(400, "%v", err)
		}
		found := []any{}
		if more == 0 {
			b.snapshot.Scan(shard, max(from, resume), func(rev uint64, _ []byte) bool {
				if rev > to {
					return false
				}
				if n++; n > rangeLimit {
					more = rev
					return false
				}
				found = append(found, store.EncodeRevision(rev))
				return true
			})
		}
		out = append(out, found)
	}
	answer := value.New("ranges", out)
	if more > 0 {
		answer.Set("resume", store.EncodeRevision(more))
	}
	return r.reply(200, answer)
}

// revisionDocuments is PUT revisions/documents: an empty object stands for a revision that does not exist.
func revisionDocuments(r *request) error {
	b, c, shard, err := r.snapshotShard()
	if err != nil {
		return err
	}
	body, err := r.any()
	if err != nil {
		return err
	}
	revs, ok := body.([]any)
	if !ok {
		return fail(400, "expected body to be array of revisions")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return fail(1600)
	}
	out := []any{}
	for _, v := range revs {
		s, _ := v.(string)
		rev, err := store.DecodeRevision(s)
		if err != nil {
			return fail(400, "%v", err)
		}
		if doc := b.snapshot.Document(shard, rev); doc != nil {
			out = append(out, value.Raw(store.AppendWithID(nil, c.Name(), doc)))
		} else {
			out = append(out, &value.Object{})
		}
	}
	return r.reply(200, out)
}

// checksum is GET collection/{c}/checksum: order-free, over keys, and over revisions and data when asked.
func checksum(r *request) error {
	return r.show(func(tx *store.Tx, c *store.Collection, out *value.Object) error {
		revs, data := r.flag("withRevisions", false), r.flag("withData", false)
		var sum uint64
		tx.Each(c, func(raw []byte) bool {
			doc := value.MustObject(raw)
			h := hashBytes([]byte(doc.String("_key")))
			if revs {
				h += hashBytes([]byte(doc.String("_rev")))
			}
			if data {
				for _, m := range doc.Members {
					if m.Name != "_key" && m.Name != "_rev" {
						h += hashBytes(value.JSON([]any{m.Name, m.Value}))
					}
				}
			}
			sum ^= h
			return true
		})
		out.Set("checksum", strconv.FormatUint(sum, 10))
		out.Set("revision", collectionRevision(tx, c))
		return nil
	})
}
