package elasticsearch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/maven"
)

const logging = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1}] %m%n%throwable
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
`

// configure writes the node's settings. One that a release does not know stops
// it, so they differ.
func (e *Engine) configure(r release, m engine.Member, members []engine.Member) error {
	var names, seeds []string
	for _, o := range members {
		names = append(names, o.Name)
		seeds = append(seeds, fmt.Sprintf("%s:%d", o.Options["host"], o.Ports["transport"]))
	}
	yml := fmt.Sprintf(`cluster.name: lab-%s
node.name: %s
network.host: %s
http.port: %d
transport.port: %d
path.repo: ["%s"]
cluster.routing.allocation.disk.threshold_enabled: false
indices.breaker.total.use_real_memory: false
`, m.Instance, m.Name, m.Options["host"], m.Ports["http"], m.Ports["transport"], m.Options["repo_dir"])
	product := "elasticsearch"
	masters := "cluster.initial_master_nodes"
	if r.opensearch {
		product, masters = "opensearch", "cluster.initial_cluster_manager_nodes"
	}
	if len(members) == 1 {
		yml += "discovery.type: single-node\n"
	} else {
		yml += fmt.Sprintf("discovery.seed_hosts: [\"%s\"]\n%s: [\"%s\"]\n", strings.Join(seeds, `","`), masters, strings.Join(names, `","`))
	}
	if r.url {
		yml += "repositories.url.allowed_urls: [\"http://127.0.0.1:*/*\"]\n"
	}
	var err error
	if r.secure {
		yml += `plugins.security.ssl.transport.pemcert_filepath: node.pem
plugins.security.ssl.transport.pemkey_filepath: node.key
plugins.security.ssl.transport.pemtrustedcas_filepath: ca.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.ssl.http.enabled: true
plugins.security.ssl.http.pemcert_filepath: node.pem
plugins.security.ssl.http.pemkey_filepath: node.key
plugins.security.ssl.http.pemtrustedcas_filepath: ca.pem
plugins.security.allow_default_init_securityindex: true
plugins.security.authcz.admin_dn: ["CN=admin"]
plugins.security.nodes_dn: ["CN=node"]
`
		err = configureSecurity(r, m)
	}
	config := filepath.Join(m.Dir, "config")
	return errors.Join(err,
		os.WriteFile(filepath.Join(config, product+".yml"), []byte(yml), 0o600),
		os.WriteFile(filepath.Join(config, "log4j2.properties"), []byte(logging), 0o600))
}

// configureSecurity copies the plugin's own configuration and puts the one user in it that the lab has.
func configureSecurity(r release, m engine.Member) error {
	set, err := maven.Dir(r.set)
	if err != nil {
		return err
	}
	to := filepath.Join(m.Dir, "config", "opensearch-security")
	users := filepath.Join(to, "internal_users.yml")
	if exists(users) {
		return nil
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(filepath.Join(set, "home", "plugins", "opensearch-security", "config"))); err != nil {
		return fmt.Errorf("copy the security plugin's configuration: %w", err)
	}
	password, err := os.ReadFile(m.Options["password_file"])
	if err != nil {
		return fmt.Errorf("read the administrator's password: %w", err)
	}
	hash, err := bcrypt.GenerateFromPassword(password, bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("hash the administrator's password: %w", err)
	}
	text := fmt.Sprintf("_meta:\n  type: \"internalusers\"\n  config_version: 2\nadmin:\n  hash: \"%s\"\n  reserved: true\n  backend_roles: [\"admin\"]\n", hash)
	return os.WriteFile(users, []byte(text), 0o600)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (e *Engine) serverCommand(r release, m engine.Member) ([]string, error) {
	set, err := maven.Dir(r.set)
	if err != nil {
		return nil, err
	}
	launcher, _, err := r.launcher()
	if err != nil {
		return nil, err
	}
	home, core := filepath.Join(set, "home"), filepath.Join(set, r.core)
	heap := "256m"
	argv := []string{maven.Tool("java")}
	if e.has("bench") {
		heap = "1g"
	} else {
		// Half the CPU time to start, on a small machine. Benchmarks must not use it.
		argv = append(argv, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
	}
	config := filepath.Join(m.Dir, "config")
	argv = append(argv, "-Xms"+heap, "-Xmx"+heap, "-XX:+ExitOnOutOfMemoryError", "-XX:ErrorFile="+filepath.Join(m.Dir, "java-crash.log"),
		"-Djava.io.tmpdir="+filepath.Join(m.Dir, "tmp"),
		"-Dlog4j2.configurationFile="+filepath.Join(config, "log4j2.properties"), "-Dlog4j2.disable.jmx=true")
	if r.modules {
		argv = append(argv, "-Des.nativelibs.path="+nativeLibraries(), "--module-path", core, "--add-modules", "ALL-MODULE-PATH",
			"--add-opens", "org.elasticsearch.server/org.elasticsearch.node=ALL-UNNAMED", "-cp", launcher)
	} else {
		argv = append(argv, "-cp", filepath.Join(core, "*")+":"+launcher)
	}
	if r.opensearch {
		argv = append(argv, "-Dopensearch.path.conf="+config)
	}
	return append(argv, r.main, home, m.Dir), nil
}

// nativeLibraries is where Debian keeps shared libraries on this kind of machine.
func nativeLibraries() string {
	return map[string]string{"amd64": "/usr/lib/x86_64-linux-gnu", "arm64": "/usr/lib/aarch64-linux-gnu"}[runtime.GOARCH]
}
