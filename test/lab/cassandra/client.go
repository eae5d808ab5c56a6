package cassandra

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// queryTimeout bounds one statement; a DROP on a loaded ring of three takes half a minute.
const queryTimeout = 2 * time.Minute

// dial opens a session with one node only, which coordinates every statement.
func dial(ctx context.Context, m engine.Member, user, passwordFile string) (*gocql.Session, error) {
	return dialWaiting(ctx, m, user, passwordFile, time.Minute)
}

func dialWaiting(ctx context.Context, m engine.Member, user, passwordFile string, agree time.Duration) (*gocql.Session, error) {
	password, err := os.ReadFile(passwordFile)
	if err != nil {
		return nil, fmt.Errorf("read a password: %w", err)
	}
	return open(ctx, m, user, strings.TrimSpace(string(password)), agree)
}

func dialAs(ctx context.Context, m engine.Member, user, password string) (*gocql.Session, error) {
	return open(ctx, m, user, password, time.Minute)
}

// open waits so long after a definition for all nodes to agree on it.
func open(ctx context.Context, m engine.Member, user, password string, agree time.Duration) (*gocql.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := gocql.NewCluster(m.Options["host"])
	c.Port = m.Ports["cql"]
	c.ProtoVersion = 4
	c.Authenticator = gocql.PasswordAuthenticator{Username: user, Password: password}
	c.ConnectTimeout, c.Timeout = 20*time.Second, queryTimeout // a log-in to one that starts beside many others takes long
	c.NumConns = 2
	c.Consistency = gocql.LocalOne
	c.PageSize = 1000
	c.DisableInitialHostLookup = true
	c.HostFilter = gocql.WhiteListHostFilter(m.Options["host"])
	c.ReconnectInterval = 0
	c.Events.DisableNodeStatusEvents, c.Events.DisableTopologyEvents, c.Events.DisableSchemaEvents = true, true, true
	c.Logger = log.New(io.Discard, "", 0)
	c.DefaultTimestamp = false
	c.MaxWaitSchemaAgreement = agree
	s, err := c.CreateSession()
	if err != nil {
		return nil, fmt.Errorf("connect to %s as %s: %w", m.Name, user, err)
	}
	return s, nil
}

// dialAny logs in as the lab's superuser, or as the server's own as long as that one exists.
func dialAny(ctx context.Context, m engine.Member) (*gocql.Session, error) {
	c, err := dial(ctx, m, Admin, m.Options["admin_password_file"])
	if err == nil || !strings.Contains(err.Error(), "credentials") && !strings.Contains(err.Error(), "incorrect") {
		return c, err
	}
	own, ownErr := dialAs(ctx, m, "cassandra", "cassandra")
	if ownErr != nil {
		return nil, err
	}
	return own, nil
}

// Client connects to one member as the lab's superuser; the caller closes it.
func Client(ctx context.Context, m engine.Member) (*gocql.Session, error) {
	return dial(ctx, m, Admin, m.Options["admin_password_file"])
}

// seesAll reads from all replicas of the accounts, which are all nodes.
func seesAll(ctx context.Context, m engine.Member) error {
	c, err := Client(ctx, m)
	if err != nil {
		return err
	}
	defer c.Close()
	var role string
	err = c.Query("SELECT role FROM system_auth.roles WHERE role = ?", Admin).Consistency(gocql.All).WithContext(ctx).Scan(&role)
	if err != nil {
		return fmt.Errorf("read from all replicas: %w", err)
	}
	return nil
}

// OrdinaryWrite makes one write as a role without special rights, where no backup, judge or restore looks: the keyspace of
// the product's own bookkeeping, which a restore has made.
func OrdinaryWrite(ctx context.Context, m engine.Member) error {
	c, err := dial(ctx, m, Backup, m.Options["backup_password_file"])
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Query("INSERT INTO cso_backup.step (work, pass, what, member, value) VALUES ('lab', 0, 'written', 'lab', 0x) USING TTL 60").
		Consistency(gocql.Quorum).WithContext(ctx).Exec()
}
