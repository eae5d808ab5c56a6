package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/headers"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"golang.org/x/sys/unix"
)

// watchInterval is how often the database's path is compared with the file the server has open.
const watchInterval = 2 * time.Second

// errFileLost marks the end of a server whose database is no longer at its path.
var errFileLost = errors.New("the Temporal database was deleted or replaced while the server was running")

// stamp is the side file that says which server made the database. Temporal has no schema migration for SQLite, and a
// newer server on an older schema looks healthy while schedules hang, so only the same version may open it.
type stamp struct {
	Server  string `json:"server"`            // version of the Temporal server, "1.32.1"
	Cluster string `json:"cluster,omitempty"` // cluster id; empty until the first start succeeded
}

// database is the directory of the SQLite file, locked for this process.
type database struct {
	dir, path string
	lock      *os.File
	inode     os.FileInfo // of path, taken when it was opened
	log       *slog.Logger
}

// openDatabase locks dir, checks the stamp, and makes the schema if there is no database yet.
func openDatabase(dir string, log *slog.Logger) (_ *database, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the database directory: %w", err)
	}
	db := &database{dir: dir, path: filepath.Join(dir, "temporal.db"), log: log}
	if db.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open the database lock: %w", err)
	}
	defer func() {
		if err != nil {
			db.close()
		}
	}()
	if err := unix.Flock(int(db.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another cso-temporald uses %s (%w); stop it first, two servers on one file destroy each other's runs", dir, err)
	}
	if err := db.prepare(); err != nil {
		return nil, err
	}
	db.inode, err = os.Stat(db.path)
	return db, err
}

func (db *database) close() { _ = db.lock.Close() }

// prepare accepts a database of this server's version, or makes a new one.
func (db *database) prepare() error {
	made, err := db.readStamp()
	if err != nil {
		return err
	}
	_, err = os.Stat(db.path)
	switch {
	case err == nil && made == nil:
		return fmt.Errorf("%s has no %s beside it: it was not made by cso-temporald; %s", db.path, stampName, db.moveAside())
	case err == nil && made.Server != headers.ServerVersion:
		return fmt.Errorf("%s was made by Temporal server %s, this is %s, and SQLite databases cannot be migrated; "+
			"start version %s again, or, when no operation is running, %s", db.path, made.Server, headers.ServerVersion, made.Server, db.moveAside())
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look at the database: %w", err)
	}
	if made != nil && made.Cluster != "" {
		db.log.Warn("the Temporal database is gone; starting with an empty one and a new cluster id. Backups, schedules and the journal are elsewhere; "+
			"an operation that was running is settled by its journal", "path", db.path, "lost_cluster", made.Cluster)
	}
	// The stamp comes first: a crash after it leaves no database, a crash before it nothing at all.
	if err := db.writeStamp(stamp{Server: headers.ServerVersion}); err != nil {
		return err
	}
	return db.create()
}

func (db *database) moveAside() string {
	return fmt.Sprintf("move it aside (mv %s %[1]s.old) and start again: backups and schedules are kept elsewhere, schedules are re-created from their files, "+
		"only the history of past runs is lost", db.dir)
}

// create makes the schema under another name, so that a crash never leaves half a schema under the right one.
func (db *database) create() error {
	tmp := db.path + ".new"
	// A write-ahead log that a lost database left behind does not belong to the new one.
	for _, stale := range []string{tmp, tmp + "-journal", tmp + "-wal", tmp + "-shm", db.path + "-wal", db.path + "-shm"} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a leftover: %w", err)
		}
	}
	cfg := sqlConfig(tmp)
	cfg.ConnectAttributes["journal_mode"], cfg.ConnectAttributes["synchronous"] = "memory", "0" // synced below, as a whole
	if err := sqliteschema.SetupSchema(cfg); err != nil {
		return fmt.Errorf("make the Temporal database: %w", err)
	}
	if err := syncPath(tmp); err != nil {
		return fmt.Errorf("sync the Temporal database: %w", err)
	}
	if err := os.Rename(tmp, db.path); err != nil {
		return fmt.Errorf("name the Temporal database: %w", err)
	}
	return syncPath(db.dir)
}

// sqlConfig is how both the default and the visibility store open the file at path; equal settings share one pool.
func sqlConfig(path string) *config.SQL {
	return &config.SQL{
		PluginName: sqliteplugin.PluginName, DatabaseName: path, MaxConns: 1, MaxIdleConns: 1,
		// synchronous 2 (FULL): what the server acknowledged survives a power failure.
		ConnectAttributes: map[string]string{"mode": "rwc", "journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"},
	}
}

// watch returns nil when ctx ends, and errFileLost as soon as the path no longer leads to the open file. SQLite itself
// notices nothing: it goes on in a file without a name, and everything is lost when it stops. Going on would only lose
// more, so the process ends, loudly; its supervisor starts it on what is there now, the workers see another cluster id,
// and the journal settles what was running.
func (db *database) watch(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := os.Stat(db.path)
		if err == nil && os.SameFile(now, db.inode) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			db.log.Warn("cannot look at the Temporal database", "error", err)
			continue
		}
		found := "a different file is there now"
		if err != nil {
			found = "nothing is there now"
		}
		return fmt.Errorf("%w: %s (%s); what ran since is lost with it. Start cso-temporald again: with no file it makes a new one, "+
			"schedules are re-created, and the journal of a running operation decides how it ends (status shows it)", errFileLost, db.path, found)
	}
}

// stampCluster records the cluster id of the running server, or refuses a database that is not the stamped one.
func (db *database) stampCluster(cluster string) error {
	made, err := db.readStamp()
	if err != nil {
		return err
	}
	switch {
	case made != nil && made.Cluster == cluster:
		return nil
	case made != nil && made.Cluster != "":
		return fmt.Errorf("%s belongs to Temporal cluster %s, but %s says %s: the file was swapped; put the right one back, or %s",
			db.path, cluster, stampName, made.Cluster, db.moveAside())
	}
	return db.writeStamp(stamp{Server: headers.ServerVersion, Cluster: cluster})
}

const stampName = "stamp.json"

func (db *database) readStamp() (*stamp, error) {
	data, err := os.ReadFile(filepath.Join(db.dir, stampName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the database's stamp: %w", err)
	}
	var s stamp
	if err := json.Unmarshal(data, &s); err != nil || s.Server == "" {
		return nil, fmt.Errorf("%s is damaged (%v); %s", filepath.Join(db.dir, stampName), err, db.moveAside())
	}
	return &s, nil
}

func (db *database) writeStamp(s stamp) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(db.dir, stampName)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the database's stamp: %w", err)
	}
	if err := syncPath(path + ".new"); err != nil {
		return fmt.Errorf("sync the database's stamp: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("name the database's stamp: %w", err)
	}
	return syncPath(db.dir)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
