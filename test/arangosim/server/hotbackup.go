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

// Hot backups are copies of the database file below <dir>/backups, with their description beside them.

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

func createHotBackup(r *request) error {
	o, err := r.object()
	if err != nil {
		return err
	}
	label := o.String("label")
	if label == "" {
		label = newUUID()
	}
	if strings.Trim(label, keyCharacters) != "" {
		return fail(10, "malformed label")
	}
	now := time.Now().UTC()
	id := now.Format("2006-01-02T15.04.05.000") + "Z_" + label
	path := r.backupPath(id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := r.store.WriteBackup(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	servers := 1
	if r.isCluster() {
		servers = len(r.dbServers())
	}
	meta := value.New("id", id, "datetime", now.Format("2006-01-02T15:04:05Z"), "version", r.cfg.Version, "available", true,
		"nrDBServers", servers, "nrFiles", servers, "nrPiecesPresent", servers, "sizeInBytes", info.Size(),
		"potentiallyInconsistent", false, "keys", []any{})
	if err := os.WriteFile(path+".json", value.JSON(meta), 0o600); err != nil {
		return err
	}
	return r.result(201, meta.Keep("id", "datetime", "nrDBServers", "nrFiles", "sizeInBytes", "potentiallyInconsistent"))
}

func listHotBackups(r *request) error {
	o, err := r.object()
	if err != nil {
		return err
	}
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

func deleteHotBackup(r *request) error {
	o, err := r.object()
	if err != nil {
		return err
	}
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
func restoreHotBackup(r *request) error {
	o, err := r.object()
	if err != nil {
		return err
	}
	path := r.backupPath(o.String("id"))
	if _, err := os.Stat(path); err != nil {
		return fail(404, "no such backup")
	}
	previous := fmt.Sprintf("FAILSAFE_%s", time.Now().UTC().Format("2006-01-02T15.04.05.000Z"))
	if err := r.store.WriteBackup(r.backupPath(previous)); err != nil {
		return err
	}
	r.batches.closeAll()
	r.dumps.closeAll()
	r.cursors.closeAll()
	if err := r.store.RestoreBackup(path); err != nil {
		return err
	}
	r.users.forget()
	err = r.store.View(func(tx *store.Tx) error {
		r.readOnly.Store(tx.Setting("server-mode").String("mode") == "readonly")
		return nil
	})
	if err != nil {
		return err
	}
	return r.result(200, value.New("previous", previous, "isCluster", r.isCluster()))
}
