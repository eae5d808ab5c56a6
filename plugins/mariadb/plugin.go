package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"strconv"
	"sync"

	"github.com/go-sql-driver/mysql"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Plugin is the MariaDB plugin. The zero value is ready.
type Plugin struct {
	root string // where Discover looks for the standard places; empty: /

	mu    sync.Mutex
	known map[string]*knowledge // by server
}

// New returns the plugin.
func New() *Plugin { return &Plugin{} }

var (
	_ plugins.Plugin          = (*Plugin)(nil)
	_ plugins.Pinner          = (*session)(nil)
	_ plugins.Planner         = (*session)(nil)
	_ plugins.AccountSwitcher = (*session)(nil)
	_ plugins.Quieter         = (*session)(nil)
)

// Info describes the plugin.
func (*Plugin) Info() plugins.Info {
	return plugins.Info{
		Component: "mariadb",
		Product:   "MariaDB Server",
		Versions:  "10.6 to 11.8",
		Scope:     plugins.ScopeCluster,
		Inexact: []plugins.Inexact{
			{What: "creation and change times of routines, triggers, tables and events", Why: "the server sets them and no statement changes them"},
			{What: "content of generated columns", Why: "the server computes it again from the restored columns"},
			{What: "statistics tables, time zone tables and logs in schema mysql", Why: "they are derived or belong to the host; run ANALYZE TABLE for statistics, and restart and restore again a server that had started with other zones: it translates the times of events by those"},
			{What: "global variables, plugins' binaries and replication state", Why: "they belong to the server's configuration, not to its data"},
			{What: "rows of FEDERATED, CONNECT and SPIDER tables", Why: "they are stored elsewhere; the definition is restored"},
		},
	}
}

// session is an open connection to one server.
type session struct {
	member    plugins.Member
	cfg       *mysql.Config
	db        *sql.DB // readers
	version   string
	major     int    // 1011 for 10.11
	lowerCase string // lower_case_table_names
	wsrep     bool
	local     *sql.DB // for the product's own schema, not replicated; see ownSchema
	known     *knowledge
	kept      *sql.DB // readers opened before the accounts were switched; nil until then
}

var versionText = regexp.MustCompile(`^(\d+)\.(\d+)\.\d+`)

// Open connects and proves that the server answers. It changes nothing.
func (p *Plugin) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	m, err := t.Self()
	if err != nil {
		return nil, err
	}
	cfg, err := config(m)
	if err != nil {
		return nil, err
	}
	db, err := newPool(cfg, readerSetup, nil)
	if err != nil {
		return nil, err
	}
	s := &session{member: m, cfg: cfg, db: db, known: p.knowledge(t.String() + " " + m.Name + " " + cfg.Addr)}
	if err := s.identify(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s at %s: %w", m.Name, cfg.Addr, err)
	}
	return s, nil
}

func (s *session) identify(ctx context.Context) error {
	rows, err := table(ctx, s.db, "SELECT VERSION(), (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME='WSREP_ON'), @@GLOBAL.lower_case_table_names")
	if err != nil {
		if ctx.Err() == nil && number(err) == 0 {
			return fmt.Errorf("%w: %w: check that the server runs and listens there", plugins.ErrUnavailable, err)
		}
		return classify(ctx, err)
	}
	s.version, s.wsrep, s.lowerCase = rows[0][0], rows[0][1] == "ON", rows[0][2]
	s.major = majorOf(s.version)
	maria, err := value(ctx, s.db, "SELECT COUNT(*) FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME='ARIA_BLOCK_SIZE'")
	if err != nil {
		return classify(ctx, err)
	}
	if maria != "1" || s.major < 1006 {
		return fmt.Errorf("version %q: %w: want MariaDB 10.6 or newer", s.version, plugins.ErrVersion)
	}
	return nil
}

// majorOf is 1011 for "10.11.19-MariaDB", 0 for what is no version.
func majorOf(version string) int {
	v := versionText.FindStringSubmatch(version)
	if v == nil {
		return 0
	}
	major, _ := strconv.Atoi(v[1])
	minor, _ := strconv.Atoi(v[2])
	return major*100 + minor
}

// PreHook stops the event scheduler before a restore, so that no event writes
// until the digests are proven. The setting it had is kept in the journal.
func (s *session) PreHook(ctx context.Context, run plugins.Run) error {
	switch run.Operation {
	case plugins.OpRestore, plugins.OpRollback, plugins.OpDisaster:
		if epoch, err := s.claimed(ctx); err != nil {
			return classify(ctx, err)
		} else if epoch > run.Epoch {
			return fmt.Errorf("epoch %d: %w: epoch %d holds the server", run.Epoch, plugins.ErrFenced, epoch)
		}
		return classify(ctx, s.stopEvents(ctx))
	}
	return nil
}

// PostHook gives the event scheduler its setting back, if PreHook or Restore
// took it. It runs after the digests were compared.
func (s *session) PostHook(ctx context.Context, run plugins.Run) error {
	if epoch, err := s.claimed(ctx); err != nil || epoch > run.Epoch {
		return classify(ctx, err) // a newer run does it at its own end
	}
	return classify(ctx, s.startEvents(ctx))
}

// Close ends the session.
func (s *session) Close() error {
	for _, db := range []*sql.DB{s.kept, s.local} {
		if db != nil {
			db.Close()
		}
	}
	return s.db.Close()
}

// parallel is how many connections a run may use for data.
func parallel(run plugins.Run) int { return max(1, min(run.Parallel, 16)) }
