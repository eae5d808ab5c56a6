package mariadb

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/go-sql-driver/mysql"
)

// extraPlugins are engines and authentication methods Debian ships beside the
// built-in ones; those whose file exists are loaded. FederatedX and Sphinx are
// left out: their tables hold no data of this server.
var extraPlugins = []string{"ha_archive", "ha_blackhole", "auth_ed25519"}

// maxSocketPath leaves room in sun_path (108 bytes with its terminator).
const maxSocketPath = 100

func dataDir(m engine.Member) string    { return filepath.Join(m.Dir, "data") }
func configPath(m engine.Member) string { return filepath.Join(m.Dir, "my.cnf") }
func clientConfig(m engine.Member) string {
	return filepath.Join(m.Dir, "client.cnf")
}

func passwordFile(m engine.Member) string {
	if p := m.Options[optPassword]; p != "" {
		return p
	}
	return filepath.Join(m.Dir, "root.password")
}

// socketPath is below Dir unless that is too long for a unix socket; then it
// is in a private directory named by a hash of Dir, the same at every call.
func socketPath(m engine.Member) string {
	if p := m.Options[optSocket]; p != "" {
		return p
	}
	p := filepath.Join(m.Dir, "mariadb.sock")
	if len(p) <= maxSocketPath {
		return p
	}
	sum := sha256.Sum256([]byte(m.Dir))
	return filepath.Join(os.TempDir(), "cso-lab-"+hex.EncodeToString(sum[:6]), "mariadb.sock")
}

// Prepare makes an empty server: data directory, configuration, and a root
// account whose password is never empty, not even for the first start. A
// member that has a data directory keeps it; a password file that exists
// already is used, so that a reinstalled server can keep its credentials.
func (server) Prepare(ctx context.Context, members []engine.Member) error {
	for i := range members {
		m := &members[i]
		if m.Options == nil {
			m.Options = map[string]string{}
		}
		m.Options[optUser] = adminUser
		m.Options[optPassword] = passwordFile(*m)
		m.Options[optSocket] = socketPath(*m)
		m.Options[optClient] = clientConfig(*m)
		if err := prepareOne(ctx, *m); err != nil {
			return err
		}
	}
	return nil
}

func prepareOne(ctx context.Context, m engine.Member) error {
	for _, d := range []string{m.Dir, filepath.Join(m.Dir, "tmp"), filepath.Join(m.Dir, "binlog"), filepath.Dir(socketPath(m)), filepath.Dir(passwordFile(m))} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("mariadb %s: make directory: %w", m.Name, err)
		}
	}
	password, err := readPassword(m)
	if errors.Is(err, os.ErrNotExist) {
		password = rand.Text()
		err = os.WriteFile(passwordFile(m), []byte(password+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("mariadb %s: root's password: %w", m.Name, err)
	}
	client := fmt.Sprintf("[client]\nuser=%s\npassword=%s\nsocket=%s\ndefault-character-set=utf8mb4\n", adminUser, password, socketPath(m))
	if err := os.WriteFile(clientConfig(m), []byte(client), 0o600); err != nil {
		return fmt.Errorf("mariadb %s: client configuration: %w", m.Name, err)
	}
	plugins, err := pluginDir(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(configPath(m), []byte(config(m, plugins)), 0o600); err != nil {
		return fmt.Errorf("mariadb %s: server configuration: %w", m.Name, err)
	}
	if _, err := os.Stat(filepath.Join(dataDir(m), "mysql", "global_priv.frm")); err == nil {
		return nil
	}
	return initData(ctx, m, password)
}

// config keeps the server small and, apart from that, as Debian sets it up.
func config(m engine.Member, plugins string) string {
	lines := []string{
		"[mariadbd]",
		"datadir=" + dataDir(m),
		"socket=" + socketPath(m),
		"pid-file=" + filepath.Join(m.Dir, "mariadbd.pid"),
		"tmpdir=" + filepath.Join(m.Dir, "tmp"),
		"bind-address=127.0.0.1",
		fmt.Sprintf("port=%d", m.Ports[clientPort]),
		"character-set-server=utf8mb4",
		"collation-server=utf8mb4_general_ci",
		"server-id=1",
		"log-bin=" + filepath.Join(m.Dir, "binlog", "log"),
		"log-bin-trust-function-creators=1",
		"binlog-format=ROW",
		"max-binlog-size=256M",
		"event-scheduler=ON",
		"local-infile=1",
		"max-allowed-packet=256M",
		"max-connections=300",
		"innodb-buffer-pool-size=128M",
		"key-buffer-size=8M",
		"aria-pagecache-buffer-size=8M",
		"performance-schema=OFF",
	}
	for _, p := range extraPlugins {
		if _, err := os.Stat(filepath.Join(plugins, p+".so")); err == nil {
			lines = append(lines, "plugin-load-add="+p)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// pluginDir asks the server itself where its plugins are.
func pluginDir(ctx context.Context) (string, error) {
	prog, err := program("mariadbd")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, prog, "--no-defaults", "--verbose", "--help").Output()
	if err != nil {
		return "", fmt.Errorf("mariadb: mariadbd --verbose --help: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if dir, ok := strings.CutPrefix(line, "plugin-dir"); ok {
			return strings.TrimSpace(dir), nil
		}
	}
	return "", errors.New("mariadb: mariadbd --verbose --help names no plugin-dir: is this MariaDB?")
}

func initData(ctx context.Context, m engine.Member, password string) error {
	if err := os.RemoveAll(dataDir(m)); err != nil {
		return fmt.Errorf("mariadb %s: clear half-made data directory: %w", m.Name, err)
	}
	prog, err := program("mariadb-install-db")
	if err != nil {
		return err
	}
	args := append([]string{"--no-defaults", "--datadir=" + dataDir(m), "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve"}, userFlag()...)
	if out, err := exec.CommandContext(ctx, prog, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb %s: mariadb-install-db: %w\n%s", m.Name, err, out)
	}
	// Fixed time and no account named after this host: two freshly installed
	// servers have equal accounts, apart from the password.
	sql := strings.Join([]string{
		"FLUSH PRIVILEGES;",
		"SET timestamp=1500000000;",
		"DELETE FROM mysql.global_priv WHERE User='' OR (User='root' AND Host<>'localhost');",
		"FLUSH PRIVILEGES;",
		"ALTER USER root@localhost IDENTIFIED BY '" + password + "';",
		"CREATE USER root@'127.0.0.1' IDENTIFIED BY '" + password + "';",
		"GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;",
		// GRANT PROXY needs a session with an account, which bootstrapping has not.
		"REPLACE INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) VALUES ('127.0.0.1','root','','',1,'');",
		"DELETE FROM mysql.proxies_priv WHERE User='root' AND Host NOT IN ('localhost','127.0.0.1');",
	}, "\n") + "\n"
	prog, err = program("mariadbd")
	if err != nil {
		return err
	}
	args = append([]string{"--no-defaults", "--datadir=" + dataDir(m), "--bootstrap"}, userFlag()...)
	cmd := exec.CommandContext(ctx, prog, args...)
	cmd.Stdin = strings.NewReader(sql)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "ERROR") {
		return fmt.Errorf("mariadb %s: set root's password: %w\n%s", m.Name, err, strings.ReplaceAll(string(out), password, "…"))
	}
	return nil
}

// userFlag: mariadbd refuses to run as root unless told so by name.
func userFlag() []string {
	if os.Geteuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

func (server) Command(m engine.Member, _ []engine.Member) (argv, env []string, err error) {
	prog, err := program("mariadbd")
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(socketPath(m)), 0o700); err != nil {
		return nil, nil, fmt.Errorf("mariadb %s: directory of the socket: %w", m.Name, err)
	}
	return append([]string{prog, "--defaults-file=" + configPath(m)}, userFlag()...), nil, nil
}

// readyWait bounds one call of Ready; a caller that watches the process as
// well repeats the call.
const readyWait = 5 * time.Second

func (server) Ready(ctx context.Context, m engine.Member) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	db, err := open(m, "tcp", "")
	if err != nil {
		return err
	}
	defer db.Close()
	for {
		var port int
		err := db.QueryRowContext(ctx, "SELECT @@port FROM mysql.global_priv LIMIT 1").Scan(&port)
		if err == nil && port == m.Ports[clientPort] {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("mariadb %s: no answer on %s yet: %w", m.Name, address(m), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Secure proves that authentication is on: without the password root is refused.
func (server) Secure(ctx context.Context, members []engine.Member) error {
	for _, m := range members {
		cfg := baseConfig(m, "tcp")
		cfg.Passwd = ""
		db, err := openConfig(cfg)
		if err != nil {
			return err
		}
		err = db.PingContext(ctx)
		db.Close()
		var denied *mysql.MySQLError
		if !errors.As(err, &denied) || denied.Number != 1045 {
			return fmt.Errorf("mariadb %s: root without password was not refused (%w): start over with an empty directory", m.Name, err)
		}
	}
	return nil
}
