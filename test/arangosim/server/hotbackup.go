package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// Hot backups are copies of the database file below <dir>/backups, with their description beside them. Their time has
// nanoseconds, which the real ones have not: here two can be made in one millisecond.

// withBackups answers 404 where the edition has no hot backup.
func withBackups(h handler) handler {
	return func(r *request) error {
		if !r.features() {
			return fail(404, "unknown path '%s'", r.http.URL.Path)
		}
		r.backups.Lock()
		defer r.backups.Unlock()
		return h(r)
	}
}

func (s *Server) backupPath(id string) string {
	return filepath.Join(s.cfg.Dir, "backups", filepath.Base(id)+".db")
}

func createHotBackup(r *request, o *value.Object) error {
	label := o.String("label")
	if label == "" {
		label = newUUID()
	}
	if strings.Trim(label, keyCharacters) != "" {
		return fail(10, "malformed label")
	}
	inconsistent, err := r.lockWrites(o)
	if err != nil {
		return err
	}
	id := time.Now().UTC().Format("2006-01-02T15.04.05.000000000") + "Z_" + label
	meta, err := r.writeHotBackup(id, inconsistent)
	if err != nil {
		return err
	}
	return r.result(201, meta.Keep("id", "datetime", "nrDBServers", "nrFiles", "sizeInBytes", "potentiallyInconsistent"))
}

func (s *Server) writeHotBackup(id string, inconsistent bool) (*value.Object, error) {
	path := s.backupPath(id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := s.store.WriteBackup(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	servers := 1
	if s.isCluster() {
		servers = len(s.dbServers())
	}
	meta := value.New("id", id, "datetime", time.Now().UTC().Format("2006-01-02T15:04:05Z"), "version", s.cfg.Version, "available", true,
		"nrDBServers", servers, "nrFiles", servers, "nrPiecesPresent", servers, "sizeInBytes", info.Size(),
		"potentiallyInconsistent", inconsistent, "keys", []any{})
	return meta, os.WriteFile(path+".json", value.JSON(meta), 0o600)
}

// lockWrites waits until no transaction that may write is open: the global lock. What is behind it is the copy itself, which is one transaction.
func (r *request) lockWrites(o *value.Object) (inconsistent bool, err error) {
	deadline := time.Now().Add(time.Duration(o.Int("timeout", 120)) * time.Second)
	for {
		writing := []*stream{}
		r.streams.each(func(_ string, s *stream) {
			if s.mu.TryLock() {
				defer s.mu.Unlock()
				if s.status != "running" || len(s.write) == 0 {
					return
				}
			}
			writing = append(writing, s)
		})
		if len(writing) == 0 || r.http.Context().Err() != nil {
			return false, r.http.Context().Err()
		}
		if time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		switch {
		case o.Bool("force", false):
			for _, s := range writing {
				s.mu.Lock()
				if s.status == "running" {
					s.abort(r.Server)
				}
				s.mu.Unlock()
			}
		case o.Bool("allowInconsistent", false):
			return true, nil
		default:
			return false, fail(18, "could not acquire the global transaction lock in time").withCode(408)
		}
	}
}

func listHotBackups(r *request, o *value.Object) error {
	names, err := filepath.Glob(filepath.Join(r.cfg.Dir, "backups", "*.json"))
	if err != nil {
		return err
	}
	list := &value.Object{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return err
		}
		meta := value.MustObject(b)
		if id := o.String("id"); id == "" || id == meta.String("id") {
			list.Set(meta.String("id"), meta)
		}
	}
	if o.String("id") != "" && len(list.Members) == 0 {
		return fail(404, "no such backup")
	}
	return r.result(200, value.New("server", r.node.id, "list", list))
}

func deleteHotBackup(r *request, o *value.Object) error {
	path := r.backupPath(o.String("id"))
	if err := os.Remove(path); err != nil {
		return fail(404, "no such backup")
	}
	if err := os.Remove(path + ".json"); err != nil {
		return err
	}
	return r.result(200, &value.Object{})
}

// restoreHotBackup puts the copy back; like the real one it first keeps what is there.
func restoreHotBackup(r *request, o *value.Object) error {
	path := r.backupPath(o.String("id"))
	if _, err := os.Stat(path); err != nil {
		return fail(404, "no such backup")
	}
	meta, err := os.ReadFile(path + ".json")
	if err != nil {
		return err
	}
	if v := value.MustObject(meta).String("version"); v != r.cfg.Version {
		return fail(400, "the backup is of version %s, this server is %s", v, r.cfg.Version)
	}
	previous := fmt.Sprintf("FAILSAFE_%s", time.Now().UTC().Format("2006-01-02T15.04.05.000000000Z"))
	if _, err := r.writeHotBackup(previous, false); err != nil {
		return err
	}
	r.batches.closeAll()
	r.dumps.closeAll()
	r.cursors.closeAll()
	if err := r.store.RestoreBackup(path); err != nil {
		return err
	}
	r.users.forget()
	return r.store.View(func(tx *store.Tx) error {
		r.readOnly.Store(tx.Setting("server-mode").String("mode") == "readonly")
		return r.result(200, value.New("previous", previous, "isCluster", r.isCluster()))
	})
}
