package server

import (
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

func version(r *request) error {
	out := value.New("server", "arango", "license", r.cfg.License, "version", r.cfg.Version)
	if r.flag("details", false) {
		mode, role := "server", r.node.role
		out.Set("details", value.New("architecture", "64bit", "arm", "false", "build-id", "simulated", "server-version", r.cfg.Version,
			"rocksdb-version", "7.2.0", "v8-version", "12.1.165", "iresearch-version", "1.3.0.0", "license", r.cfg.License,
			"mode", mode, "host", "SINGLE", "role", role, "simulated", "true"))
	}
	return r.reply(200, out)
}

func serverRole(r *request) error {
	return r.ok(200, value.New("role", r.node.role, "mode", "default"))
}

func serverID(r *request) error {
	if !r.isCluster() {
		return fail(4, "server is not in a cluster")
	}
	return r.ok(200, value.New("id", r.node.id))
}

func (s *Server) mode() string {
	if s.readOnly.Load() {
		return "readonly"
	}
	return "default"
}

func getMode(r *request) error { return r.ok(200, value.New("mode", r.mode())) }

// setMode is kept over a restart: a dead client's read-only mode stays on.
func setMode(r *request, o *value.Object) error {
	m := o.String("mode")
	if m != "default" && m != "readonly" {
		return fail(10, "mode must be default or readonly")
	}
	err := r.store.Update(func(tx *store.Tx) error {
		tx.SetSetting("server-mode", value.New("mode", m))
		return nil
	})
	if err != nil {
		return err
	}
	r.readOnly.Store(m == "readonly")
	return r.ok(200, value.New("mode", m))
}

// definable refuses creating and dropping databases and collections in read-only
// mode with 11, as GET /_admin/server/mode is documented.
func (r *request) definable() error {
	if r.frozen() {
		return fail(11)
	}
	return nil
}

// writable refuses writes in read-only mode with 1004.
func (r *request) writable() error {
	if r.frozen() {
		return fail(1004)
	}
	return nil
}

// frozen: read-only for all but the super user (arangod asks ExecContext::isSuperuser, for one in
// transaction::Methods::commitAsync and Databases::create).
func (r *request) frozen() bool { return r.readOnly.Load() && !(r.super && r.cfg.Auth) }

func availability(r *request) error {
	return r.ok(200, value.New("mode", r.mode()))
}

func serverStatus(r *request) error {
	return r.reply(200, value.New("server", "arango", "license", r.cfg.License, "version", r.cfg.Version, "mode", "server",
		"operationMode", "server", "foxxApi", true, "host", "localhost", "pid", 1,
		"serverInfo", value.New("role", r.node.role, "maintenance", false, "readOnly", r.readOnly.Load(), "writeOpsEnabled", !r.readOnly.Load(),
			"serverId", r.node.id, "state", "SERVING", "progress", value.New("phase", "in wait", "feature", "", "recoveryTick", 0))))
}

func systemTime(r *request) error {
	return r.ok(200, value.New("time", float64(time.Now().UnixMicro())/1e6))
}

func deploymentID(r *request) error {
	return r.reply(200, value.New("id", "00000000-0000-4000-8000-simulated"))
}

func license(r *request) error {
	if r.cfg.License == "enterprise" {
		return r.reply(200, value.New("features", value.New("expires", time.Now().Add(365*24*time.Hour).Unix()), "license", "simulated",
			"hash", "simulated", "version", 1, "status", "good"))
	}
	if r.atLeast(3, 12, 5) {
		return r.reply(200, value.New("diskUsage", value.New("bytesUsed", 1<<20, "bytesLimit", int64(100)<<30, "limitReached", false,
			"secondsUntilReadOnly", 315569520, "secondsUntilShutDown", 315569520, "status", "good")))
	}
	return r.reply(200, value.New("license", "none"))
}

// removeExpired ends documents of ttl indexes.
func (s *Server) removeExpired(now time.Time) {
	if s.readOnly.Load() {
		return
	}
	type expired struct {
		db, c string
		keys  []string
	}
	var all []expired
	err := s.store.View(func(tx *store.Tx) error {
		for _, d := range tx.Databases() {
			for _, c := range tx.Collections(d) {
				for _, i := range c.Indexes() {
					if i.String("type") == "ttl" {
						if keys := tx.Expired(c, i, now); len(keys) > 0 {
							all = append(all, expired{d.Name, c.Name(), keys})
						}
					}
				}
			}
		}
		return nil
	})
	if err == nil && len(all) > 0 {
		err = s.store.Update(func(tx *store.Tx) error {
			for _, x := range all {
				d := tx.Database(x.db)
				if d == nil {
					continue
				}
				if c := tx.Collection(d, x.c); c != nil {
					for _, k := range x.keys {
						if tx.Get(c, k) != nil {
							if err := tx.Delete(c, k); err != nil {
								return err
							}
						}
					}
				}
			}
			return nil
		})
	}
	if err != nil {
		s.log.Error("ttl", "error", err)
	}
}
