package etcd

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Artifacts of a backup.
const (
	artKeys      = "keys"            // key → lease id, value
	artLeases    = "leases"          // lease id → granted seconds
	artRemaining = "lease-remaining" // lease id → remaining seconds, where the server has noted them
	artUsers     = "users"           // name → roles, options
	artPasswords = "user-passwords"  // name → bcrypt hash
	artRoles     = "roles"           // name → permissions
	artAuth      = "auth"            // "enabled" → "true" or "false"
	artSnapshot  = "snapshot"        // the member's database, for disaster recovery
)

// Attributes of the artifacts leases and keys.
const (
	attrAt       = "at"       // when the view was taken, RFC 3339
	attrRevision = "revision" // of the view
)

// Pin takes a snapshot into the scratch directory: writers go on meanwhile.
func (s *session) Pin(ctx context.Context, run plugins.Run) (plugins.Pin, error) {
	if err := s.gate(ctx, run); err != nil {
		return nil, err
	}
	v, err := s.look(ctx, run)
	if err != nil {
		return nil, fmt.Errorf("pin: %w", err)
	}
	id := filepath.Base(v.path) + "@" + strconv.FormatInt(v.revision, 10)
	return &pin{s: s, v: v, info: plugins.PinInfo{ID: id, At: v.at, Position: position(v.revision, v.cluster)}}, nil
}

// position names a revision and the cluster it belongs to.
func position(revision int64, cluster uint64) string {
	return fmt.Sprintf("revision %d of cluster %x", revision, cluster)
}

type pin struct {
	s    *session
	v    *view
	info plugins.PinInfo
	once sync.Once
	err  error
}

func (p *pin) Info() plugins.PinInfo { return p.info }

func (p *pin) Release(context.Context) error {
	p.once.Do(func() { p.err = p.v.close() })
	return p.err
}

func (p *pin) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	if _, err := os.Stat(p.v.path); err != nil {
		return plugins.Report{}, fmt.Errorf("%s: %w: %w", p.s.cfg.target, plugins.ErrPinLost, err)
	}
	rep, err := p.v.write(ctx, run, p.info.ID, w, true)
	rep.Position = p.info.Position
	if err != nil {
		return rep, fmt.Errorf("back up %s: %w", p.s.cfg.target, err)
	}
	return rep, nil
}

// Backup pins and copies at once.
func (s *session) Backup(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter) (plugins.Report, error) {
	p, err := s.Pin(ctx, run)
	if err != nil {
		return plugins.Report{}, err
	}
	rep, err := p.Backup(ctx, run, w)
	return rep, errors.Join(err, p.Release(context.WithoutCancel(ctx)))
}

// Digest reads a fresh snapshot; volatile artifacts are left out.
func (s *session) Digest(ctx context.Context, run plugins.Run) (map[string]plugins.Digest, error) {
	v, err := s.look(ctx, run)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	d := plugins.NewDigester()
	_, err = v.write(ctx, run, "digest", d, false)
	if err = errors.Join(err, v.close()); err != nil {
		return nil, fmt.Errorf("digest %s: %w", s.cfg.target, err)
	}
	return d.Digests(), nil
}

// write writes the artifacts of a view; with all set, the volatile ones too.
func (v *view) write(ctx context.Context, run plugins.Run, pin string, w plugins.ArtifactWriter, all bool) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: v.version, Consistency: "one snapshot of the whole cluster at one revision"}
	passwords, remaining := map[string][]byte{}, map[string][]byte{}
	for name, u := range v.users {
		passwords[name] = u.GetPassword()
	}
	for id, l := range v.leases {
		if l.remaining > 0 {
			remaining[leaseKey(id)] = seconds(l.remaining)
		}
	}
	meta := map[string]string{attrAt: v.at.UTC().Format(time.RFC3339), attrRevision: strconv.FormatInt(v.revision, 10)}
	for _, a := range []struct {
		name    string
		records map[string][]byte
		meta    map[string]string
		extra   bool
	}{
		{artAuth, authRecords(v.auth), nil, false},
		{artLeases, leaseRecords(v.leases), meta, false},
		{artRemaining, remaining, nil, true},
		{artRoles, roleRecords(v.roles), nil, false},
		{artUsers, userRecords(v.users), nil, false},
		{artPasswords, passwords, nil, true},
	} {
		if a.extra && !all {
			continue
		}
		art := plugins.Artifact{Name: a.name, Form: plugins.Ordered, Pin: pin, Attributes: a.meta, Volatile: a.extra}
		err := writeArtifact(ctx, w, art, &rep, func(out plugins.RecordWriter) error {
			for _, k := range slices.Sorted(maps.Keys(a.records)) {
				rep.Bytes += int64(len(k) + len(a.records[k]))
				rep.Records++
				if err := out.Put([]byte(k), a.records[k]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return rep, err
		}
	}
	// The file is compressed and encrypted while the keys are brought into order.
	file, keys := plugins.Report{}, plugins.Report{}
	g, gctx := errgroup.WithContext(ctx)
	if all {
		art := plugins.Artifact{Name: artSnapshot, Form: plugins.File, Pin: pin, Volatile: true, Attributes: meta}
		g.Go(func() error {
			return writeArtifact(gctx, w, art, &file, func(out plugins.RecordWriter) error { return v.copyFile(gctx, run, out, &file) })
		})
	}
	g.Go(func() error {
		return v.writeKeys(gctx, run, w, plugins.Artifact{Name: artKeys, Form: plugins.Ordered, Pin: pin, Attributes: meta}, &keys)
	})
	err := g.Wait()
	rep.Artifacts += file.Artifacts + keys.Artifacts
	rep.Records += keys.Records
	rep.Bytes += file.Bytes + keys.Bytes
	return rep, err
}

func (v *view) writeKeys(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, art plugins.Artifact, rep *plugins.Report) error {
	shared, err := v.share(ctx, run, w, art)
	if err != nil {
		return err
	}
	if shared {
		rep.Artifacts++
		return nil
	}
	return writeArtifact(ctx, w, art, rep, func(out plugins.RecordWriter) error { return v.copyKeys(ctx, run, out, rep) })
}

func writeArtifact(ctx context.Context, w plugins.ArtifactWriter, a plugins.Artifact, rep *plugins.Report, fill func(plugins.RecordWriter) error) error {
	out, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := fill(out); err != nil {
		return fmt.Errorf("artifact %q: %w", a.Name, err)
	}
	rep.Artifacts++
	return out.Commit()
}

// share lets a safety backup refer to the keys of a backup that the same run has just found equal to them.
func (v *view) share(ctx context.Context, run plugins.Run, w plugins.ArtifactWriter, art plugins.Artifact) (bool, error) {
	to, ok := w.(plugins.Sharer)
	if !ok || run.Operation != plugins.OpSafety || v.known == nil {
		return false, nil
	}
	f, ok := v.known.recall(v.cfg.target.String(), v)
	if !ok || f.keys != (tally{}) {
		return false, nil
	}
	return to.Share(ctx, art, f.want)
}

func (v *view) copyKeys(ctx context.Context, run plugins.Run, out plugins.RecordWriter, rep *plugins.Report) error {
	it, err := v.keys(ctx, filepath.Dir(v.path))
	if err != nil {
		return err
	}
	for {
		k, rec, err := it.next()
		if err == io.EOF {
			return it.close()
		}
		if err == nil {
			err = out.Put(k, rec)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return errors.Join(err, it.close())
		}
		rep.Bytes += int64(len(k) + len(rec))
		if rep.Records++; rep.Records%4096 == 0 {
			run.Report(plugins.Status{Phase: "copy", Item: artKeys, Bytes: rep.Bytes})
		}
	}
}

func (v *view) copyFile(ctx context.Context, run plugins.Run, out plugins.RecordWriter, rep *plugins.Report) error {
	f, err := os.Open(v.path)
	if err != nil {
		return fmt.Errorf("%w: %w", plugins.ErrPinLost, err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			_, err = out.Write(buf[:n])
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rep.Bytes += int64(n)
		run.Report(plugins.Status{Phase: "copy", Item: artSnapshot, Bytes: rep.Bytes})
	}
}

func leaseKey(id int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(id))) }
func seconds(n int64) []byte   { return strconv.AppendInt(nil, n, 10) }
func leaseID(key string) int64 { return int64(binary.BigEndian.Uint64([]byte(key))) }
func authRecords(on bool) map[string][]byte {
	return map[string][]byte{"enabled": strconv.AppendBool(nil, on)}
}

func leaseRecords(ls map[int64]leaseTimes) map[string][]byte {
	out := make(map[string][]byte, len(ls))
	for id, l := range ls {
		out[leaseKey(id)] = seconds(l.granted)
	}
	return out
}

// userRecord is the canonical form of a user: all but the password.
type userRecord struct {
	Roles      []string `json:"roles"`
	NoPassword bool     `json:"noPassword"`
}

func userRecords(us map[string]*authpb.User) map[string][]byte {
	out := make(map[string][]byte, len(us))
	for name, u := range us {
		roles := slices.Clone(u.GetRoles())
		slices.Sort(roles)
		out[name] = canonical(userRecord{slices.Compact(roles), u.GetOptions().GetNoPassword()})
	}
	return out
}

// permission is the canonical form of a permission.
type permission struct {
	Key  []byte `json:"key"`
	End  []byte `json:"end"`
	Type int32  `json:"type"` // authpb: 0 read, 1 write, 2 both
}

// rootRole may do everything whatever its permissions say, and servers differ in what they say.
const rootRole = "root"

func roleRecords(rs map[string]*authpb.Role) map[string][]byte {
	out := make(map[string][]byte, len(rs))
	for name, r := range rs {
		ps := []permission{}
		if name != rootRole {
			for _, p := range r.GetKeyPermission() {
				ps = append(ps, permission{p.GetKey(), p.GetRangeEnd(), int32(p.GetPermType())})
			}
		}
		slices.SortFunc(ps, func(a, b permission) int {
			return slices.Compare([][2]string{{string(a.Key), string(a.End)}}[0][:], [][2]string{{string(b.Key), string(b.End)}}[0][:])
		})
		out[name] = canonical(ps)
	}
	return out
}

// canonical is the JSON of types whose encoding cannot fail.
func canonical(x any) []byte {
	b, err := json.Marshal(x)
	if err != nil {
		panic(err)
	}
	return b
}
