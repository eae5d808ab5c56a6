package server

import (
	"fmt"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// systemCollections exist in every database; _users and the statistics in _system only.
var systemCollections = []string{"_analyzers", "_appbundles", "_apps", "_aqlfunctions", "_frontend", "_graphs", "_jobs", "_queues"}

// plan names the cluster's servers once and for all: they keep their ids over restarts.
func (s *Server) plan() ([]*node, error) {
	if !s.isCluster() {
		return []*node{{id: "SNGL-simulated", name: "SingleServer", role: roleSingle}}, nil
	}
	var out []*node
	for i := range s.cfg.Coordinators {
		out = append(out, &node{id: fmt.Sprintf("CRDN-00000000-0000-4000-8000-%012d", i+1), name: fmt.Sprintf("Coordinator%04d", i+1), role: roleCoordinator})
		out[i].down.Store(s.cfg.Apart && i > 0)
	}
	for i := range 3 {
		out = append(out, &node{id: fmt.Sprintf("PRMR-00000000-0000-4000-8000-%012d", i+1), name: fmt.Sprintf("DBServer%04d", i+1), role: rolePrimary})
	}
	return append(out, &node{id: "AGNT-00000000-0000-4000-8000-000000000001", name: "AGNT-1", role: roleAgent}), nil
}

// prepare makes _system and root in an empty directory.
func (s *Server) prepare() error {
	err := s.store.Update(func(tx *store.Tx) error {
		if tx.Database(store.SystemDatabase) != nil {
			return nil
		}
		tx.SetSetting("server", value.New("id", "1718912345678", "mode", s.cfg.Mode))
		d, err := s.createDatabase(tx, store.SystemDatabase, &value.Object{})
		if err != nil {
			return err
		}
		for _, name := range []string{"_users", "_statistics", "_statistics15", "_statisticsRaw"} {
			if _, err := s.createCollection(tx, d, value.New("name", name, "isSystem", true)); err != nil {
				return err
			}
		}
		users := tx.Collection(d, "_users")
		root := newUser("root", s.cfg.Password, true, &value.Object{})
		root.Set("databases", value.New(
			store.SystemDatabase, value.New("permissions", permissions("rw"), "collections", value.New("*", value.New("permissions", permissions("rw")))),
			"*", value.New("permissions", permissions("rw"), "collections", value.New("*", value.New("permissions", permissions("rw"))))))
		return s.putUser(tx, users, root, false)
	})
	if err != nil {
		return fmt.Errorf("prepare the simulator's system database: %w", err)
	}
	return s.store.View(func(tx *store.Tx) error {
		if was := tx.Setting("server").String("mode"); was != s.cfg.Mode {
			return fmt.Errorf("directory %s belongs to a simulator in %s mode: use another one", s.cfg.Dir, was)
		}
		if m := tx.Setting("server-mode"); m != nil {
			s.readOnly.Store(m.String("mode") == "readonly")
		}
		for _, d := range tx.Databases() {
			for _, c := range tx.Collections(d) {
				s.store.Clock().Saw(tx.LastRevision(c))
			}
		}
		return nil
	})
}

func (s *Server) createDatabase(tx *store.Tx, name string, options *value.Object) (*store.Database, error) {
	props := value.New()
	if s.isCluster() {
		props.Set("sharding", options.String("sharding"))
		props.Set("replicationFactor", defaultTo(options.Get("replicationFactor"), int64(1)))
		props.Set("writeConcern", defaultTo(options.Get("writeConcern"), int64(1)))
	}
	if s.atLeast(3, 11, 0) {
		props.Set("replicationVersion", defaultTo(options.Get("replicationVersion"), "1"))
	}
	d := tx.CreateDatabase(name, props)
	for _, c := range systemCollections {
		if _, err := s.createCollection(tx, d, value.New("name", c, "isSystem", true)); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func defaultTo(v, otherwise any) any {
	if v == nil {
		return otherwise
	}
	return v
}
