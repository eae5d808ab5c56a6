package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// stored is the small part of a backup, in memory.
type stored struct {
	leases    map[string][]byte
	users     map[string][]byte
	roles     map[string][]byte
	passwords map[string][]byte
	auth      bool
	at        time.Time
	revision  int64
}

// read reads the artifacts that are small: all but the keys and the snapshot.
func read(ctx context.Context, r plugins.ArtifactReader) (*stored, error) {
	s := &stored{}
	auth := map[string][]byte{}
	for name, to := range map[string]*map[string][]byte{
		artLeases: &s.leases, artUsers: &s.users, artRoles: &s.roles, artPasswords: &s.passwords, artAuth: &auth,
	} {
		*to = map[string][]byte{}
		err := records(ctx, r, name, func(k, v []byte) error {
			if name == artLeases && len(k) != 8 {
				return fmt.Errorf("a lease id of %d bytes: %w", len(k), plugins.ErrData)
			}
			(*to)[string(k)] = bytes.Clone(v)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	s.auth = string(auth["enabled"]) == "true"
	for _, a := range r.Artifacts() {
		if a.Name == artLeases {
			var err, err2 error
			s.at, err = time.Parse(time.RFC3339, a.Attributes[attrAt])
			s.revision, err2 = strconv.ParseInt(a.Attributes[attrRevision], 10, 64)
			if err = errors.Join(err, err2); err != nil {
				return nil, fmt.Errorf("artifact %q: %w: %w", a.Name, plugins.ErrData, err)
			}
		}
	}
	return s, nil
}

func records(ctx context.Context, r plugins.ArtifactReader, name string, each func(k, v []byte) error) error {
	in, err := r.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("artifact %q: %w", name, err)
	}
	for {
		k, v, err := in.Next()
		if err == io.EOF {
			return in.Close()
		}
		if err == nil {
			err = each(k, v)
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return errors.Join(fmt.Errorf("artifact %q: %w", name, err), in.Close())
		}
	}
}

// lapsed says whether a lease of the backup may have expired by now: its time
// has passed since it was granted again, or, where that is not known, since the backup.
func (s *stored) lapsed(id string, granted time.Time) bool {
	ttl, err := strconv.ParseInt(string(s.leases[id]), 10, 64)
	from := s.at
	if granted.After(from) {
		from = granted
	}
	return err == nil && time.Since(from) >= time.Duration(min(ttl, 1<<32))*time.Second
}

// diffKeys walks the live keys and the stored ones in step. want is nil for a key that
// appeared later, live is nil for one that is missing. Slices are valid during the call.
func diffKeys(ctx context.Context, v *view, dir string, r plugins.ArtifactReader, each func(key, want, live []byte) error) (err error) {
	it, err := v.keys(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.close()) }()
	lk, lr, lerr := it.next()
	err = records(ctx, r, artKeys, func(k, want []byte) error {
		for lerr == nil && bytes.Compare(lk, k) < 0 {
			if err := each(lk, nil, lr); err != nil {
				return err
			}
			lk, lr, lerr = it.next()
		}
		if lerr != nil && lerr != io.EOF {
			return lerr
		}
		if len(want) < 8 {
			return fmt.Errorf("the record of a key has %d bytes: %w", len(want), plugins.ErrData)
		}
		if lerr == io.EOF || !bytes.Equal(lk, k) {
			return each(k, want, nil)
		}
		if !bytes.Equal(lr, want) {
			if err := each(k, want, lr); err != nil {
				return err
			}
		}
		lk, lr, lerr = it.next()
		return nil
	})
	for err == nil && lerr == nil {
		if err = errors.Join(each(lk, nil, lr), ctx.Err()); err == nil {
			lk, lr, lerr = it.next()
		}
	}
	if err == nil && lerr != io.EOF {
		err = lerr
	}
	return err
}
