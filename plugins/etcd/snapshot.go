package etcd

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Buckets of a member's database (go.etcd.io/etcd/server/v3/storage/schema).
var (
	bucketKey   = []byte("key")
	bucketLease = []byte("lease")
	bucketMeta  = []byte("meta")
	bucketAuth  = []byte("auth")
	bucketUsers = []byte("authUsers")
	bucketRoles = []byte("authRoles")
	bucketAlarm = []byte("alarm")
)

// spool streams a snapshot of one member into a new file of dir and verifies
// the checksum at its end. The snapshot is not older than the moment of the call.
func (s *session) spool(ctx context.Context, run plugins.Run, dir string) (path string, st *clientv3.StatusResponse, err error) {
	c, err := s.single(ctx)
	if err != nil {
		return "", nil, err
	}
	// Once this member has answered a linearizable read it has applied all that
	// was acknowledged before; its next snapshot holds it.
	if _, err := c.Get(ctx, epochKey); err != nil {
		return "", nil, s.cfg.wrap("read before the snapshot", err)
	}
	st, err = c.Status(ctx, c.Endpoints()[0])
	if err != nil {
		return "", nil, s.cfg.wrap("ask for the status", err)
	}
	f, err := os.CreateTemp(dir, "snapshot-*")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	r, err := c.Snapshot(ctx)
	if err != nil {
		return "", nil, s.cfg.wrap("take a snapshot", err)
	}
	defer r.Close()
	var sum trailer
	buf := make([]byte, 256<<10)
	for total, next := int64(0), int64(0); ; {
		n, rerr := r.Read(buf)
		if n > 0 {
			sum.write(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				return "", nil, fmt.Errorf("spool the snapshot: %w: %w", plugins.ErrSpace, err)
			}
			if total += int64(n); total >= next {
				run.Report(plugins.Status{Phase: "snapshot", Bytes: total, Total: st.DbSize})
				next = total + 4<<20
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return "", nil, s.cfg.wrap("read the snapshot", rerr)
		}
	}
	if err := sum.check(); err != nil {
		return "", nil, fmt.Errorf("%s: snapshot: %w: take it again", s.cfg.target, err)
	}
	return f.Name(), st, nil
}

// trailer hashes a stream but for its last 32 bytes, which must be that hash.
type trailer struct {
	tail []byte
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (t *trailer) write(p []byte) {
	if t.hash == nil {
		t.hash = sha256.New()
	}
	t.tail = append(t.tail, p...)
	if n := len(t.tail) - sha256.Size; n > 0 {
		t.hash.Write(t.tail[:n])
		t.tail = t.tail[:copy(t.tail, t.tail[n:])]
	}
}

func (t *trailer) check() error {
	if t.hash == nil || string(t.hash.Sum(nil)) != string(t.tail) {
		return errors.New("its checksum is wrong")
	}
	return nil
}

// view is a snapshot file, opened.
type view struct {
	cfg      *config
	db       *bolt.DB
	path     string
	revision int64
	at       time.Time
	version  string
	cluster  uint64
	term     uint64
	index    uint64
	known    *memory // nil: of no live cluster

	sortMemory int
	mapped     mapped

	leases map[int64]leaseTimes // without the product's own
	auth   bool
	users  map[string]*authpb.User
	roles  map[string]*authpb.Role
}

type leaseTimes struct{ granted, remaining int64 }

func (v *view) close() error { return errors.Join(v.db.Close(), os.Remove(v.path)) }

// look takes a snapshot of the live cluster and opens it. The caller closes it.
func (s *session) look(ctx context.Context, run plugins.Run) (*view, error) {
	at := time.Now()
	path, st, err := s.spool(ctx, run, run.Scratch)
	if err != nil {
		return nil, err
	}
	v, err := openView(ctx, s.cfg, path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	v.at, v.version, v.cluster, v.term, v.index, v.known = at, st.Version, st.Header.ClusterId, st.RaftTerm, st.RaftIndex, s.known
	return v, nil
}

// openView reads all of a snapshot but the keys.
func openView(ctx context.Context, cfg *config, path string) (*view, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("open the snapshot %s: %w", filepath.Base(path), err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshot: %w", err), db.Close())
	}
	v := &view{cfg: cfg, db: db, mapped: mapOf(db, st.Size()), path: path, sortMemory: sortMemory, leases: map[int64]leaseTimes{}, users: map[string]*authpb.User{}, roles: map[string]*authpb.Role{}}
	err = db.View(func(tx *bolt.Tx) error {
		v.revision = revisionOf(tx)
		if b := tx.Bucket(bucketAuth); b != nil {
			v.auth = slices.Equal(b.Get([]byte("authEnabled")), []byte{1})
		}
		return errors.Join(
			each(tx, bucketLease, func(k, b []byte) error {
				var l leasepb.Lease
				if err := proto.Unmarshal(b, &l); err != nil {
					return err
				}
				if _, own := epochOf(l.GetID(), l.GetTTL()); !own {
					v.leases[l.GetID()] = leaseTimes{l.GetTTL(), l.GetRemainingTTL()}
				}
				return ctx.Err()
			}),
			each(tx, bucketUsers, func(k, b []byte) error {
				u := new(authpb.User)
				v.users[string(k)] = u
				return proto.Unmarshal(b, u)
			}),
			each(tx, bucketRoles, func(k, b []byte) error {
				r := new(authpb.Role)
				v.roles[string(k)] = r
				return proto.Unmarshal(b, r)
			}))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the snapshot: %w", err), db.Close())
	}
	return v, nil
}

func each(tx *bolt.Tx, bucket []byte, do func(k, v []byte) error) error {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(do)
}

// revisionOf is the current revision of a snapshot: that of its last row, or
// that of its compaction where a compaction has removed the last row.
func revisionOf(tx *bolt.Tx) int64 {
	rev := int64(1)
	main := func(k []byte) {
		if len(k) >= 8 {
			rev = max(rev, int64(binary.BigEndian.Uint64(k)))
		}
	}
	if b := tx.Bucket(bucketKey); b != nil {
		k, _ := b.Cursor().Last()
		main(k)
	}
	if b := tx.Bucket(bucketMeta); b != nil {
		main(b.Get([]byte("scheduledCompactRev")))
		main(b.Get([]byte("finishedCompactRev")))
	}
	return rev
}

// record is what an artifact keeps of a key: lease id (8 bytes, big-endian, 0 for none), then the value.
func (v *view) record(kv keyValue, buf []byte) []byte {
	lease := kv.lease
	if _, ok := v.leases[lease]; !ok {
		lease = 0 // a lease that is gone holds nothing any more
	}
	return append(binary.BigEndian.AppendUint64(buf[:0], uint64(lease)), kv.value...)
}
