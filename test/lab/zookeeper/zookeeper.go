// Package zookeeper is the lab's engine for Debian's ZooKeeper 3.8, with a
// digest super user and TTL nodes enabled. It judges with a plain Go client
// and, for what no client can see, with the server's own classes; it shares no
// code with the product.
package zookeeper

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/packages"
)

// Engine starts and judges ZooKeeper servers.
type Engine struct{}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine.
func New() *Engine { return &Engine{} }

// jar names its own dependencies in its manifest.
const jar = "/usr/share/java/zookeeper.jar"

// Component is "zookeeper".
func (e *Engine) Component() string { return "zookeeper" }

// Ports are the clients', the peers' and the leader election's.
func (e *Engine) Ports() []string { return []string{"client", "peer", "election"} }

// Install makes the server's classes and a Java runtime available.
func (e *Engine) Install(ctx context.Context, w io.Writer) error {
	return packages.Ensure(ctx, w, []string{jar, "java", "javac"}, "zookeeper", "default-jdk-headless")
}

// Prepare makes the super user's password (one for the instance) and each member's configuration.
func (e *Engine) Prepare(_ context.Context, members []engine.Member) error {
	if err := os.MkdirAll(members[0].Dir, 0o700); err != nil {
		return fmt.Errorf("make the member's directory: %w", err)
	}
	authFile := filepath.Join(members[0].Dir, "super.auth")
	if _, err := os.Stat(authFile); err != nil {
		if err := os.WriteFile(authFile, []byte("digest super:"+rand.Text()+"\n"), 0o600); err != nil {
			return fmt.Errorf("write the super user's password: %w", err)
		}
	}
	for i, m := range members {
		m.Options["auth_file"] = authFile
		m.Options["data_dir"] = filepath.Join(m.Dir, "data")
		if err := configure(m, i+1, members, authFile); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
	}
	return nil
}

// configure writes zoo.cfg, myid and the logging's properties.
func configure(m engine.Member, id int, members []engine.Member, authFile string) error {
	_, auth, err := credentials(authFile)
	if err != nil {
		return err
	}
	// What superDigest wants is base64(SHA-1("super:password")), as DigestAuthenticationProvider makes it.
	sum := sha1.Sum([]byte(auth))
	var cfg strings.Builder
	// Keys that ZooKeeper does not know become system properties zookeeper.KEY (QuorumPeerConfig): so the
	// digest stays out of the argument vector. The long session limit is for ephemeral nodes that outlive the filler.
	fmt.Fprintf(&cfg, `tickTime=500
initLimit=40
syncLimit=20
maxSessionTimeout=86400000
maxClientCnxns=0
preAllocSize=8192
admin.enableServer=false
4lw.commands.whitelist=*
extendedTypesEnabled=true
DigestAuthenticationProvider.superDigest=super:%s
dataDir=%s
clientPortAddress=127.0.0.1
clientPort=%d
`, base64.StdEncoding.EncodeToString(sum[:]), m.Options["data_dir"], m.Ports["client"])
	if len(members) > 1 {
		for i, o := range members {
			fmt.Fprintf(&cfg, "server.%d=127.0.0.1:%d:%d\n", i+1, o.Ports["peer"], o.Ports["election"])
		}
	}
	if err := os.MkdirAll(m.Options["data_dir"], 0o700); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(m.Options["data_dir"], "myid"), fmt.Appendf(nil, "%d\n", id), 0o600),
		os.WriteFile(filepath.Join(m.Dir, "zoo.cfg"), []byte(cfg.String()), 0o600),
		os.WriteFile(filepath.Join(m.Dir, "log4j.properties"), []byte(`log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p %c{1} %m%n
`), 0o600))
}

// credentials reads "digest super:secret".
func credentials(authFile string) (scheme, auth string, err error) {
	b, err := os.ReadFile(authFile)
	if err != nil {
		return "", "", fmt.Errorf("read the super user's password: %w", err)
	}
	scheme, auth, found := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !found {
		return "", "", fmt.Errorf("%s must hold one line `digest user:password`", authFile)
	}
	return scheme, auth, nil
}

// Command is the server's, with the flags that halve start time and memory of
// a Java server on a small machine. Benchmarks must not use them.
func (e *Engine) Command(m engine.Member, _ []engine.Member) (argv, env []string, err error) {
	return append(java(m.Dir, "256m"), "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(m.Dir, "zoo.cfg")), nil, nil
}

// java is the start of a command line; among dirs is that of the logging's properties.
func java(dirs, heap string) []string {
	return []string{"java", "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", dirs + ":" + jar}
}

// Ready reads a node's ACL with the super user's credentials.
func (e *Engine) Ready(ctx context.Context, m engine.Member) error {
	c, err := dial(ctx, m)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.GetACL("/"); err != nil {
		return fmt.Errorf("ask %s: %w", m.Name, err)
	}
	return nil
}

// Secure has nothing to add: the super user stands in the configuration, and ACLs belong to the data.
func (e *Engine) Secure(context.Context, []engine.Member) error { return nil }

// Env names the member for a shell.
func (e *Engine) Env(m engine.Member, n int) []string {
	scheme, auth, err := credentials(m.Options["auth_file"])
	if err != nil {
		scheme, auth = "digest", "" // a lab whose files are gone has no password to name
	}
	p := fmt.Sprintf("LAB_ZOOKEEPER_%d_", n)
	return []string{p + "ADDR=" + address(m), p + "AUTH=" + scheme + " " + auth}
}

func address(m engine.Member) string { return fmt.Sprintf("127.0.0.1:%d", m.Ports["client"]) }

// Target is the member in the estate file.
func (e *Engine) Target(m engine.Member) (string, map[string]string) {
	return address(m), map[string]string{"auth_file": m.Options["auth_file"], "data_dir": m.Options["data_dir"]}
}
