package cassandra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// admin is what only JMX can do on a node: by nodetool, or by a Jolokia agent.
type admin interface {
	// snapshot flushes the keyspaces and links their files under the tag.
	snapshot(ctx context.Context, tag string, keyspaces []string) error
	// clearSnapshot removes the tag's links; an unknown tag is no error.
	clearSnapshot(ctx context.Context, tag string) error
	// load imports the SSTables of a directory that ends in KEYSPACE/TABLE, moving the files. A silent
	// success (wrong directory, nothing in it) is for the caller to detect. foreign takes
	// files of partitions that are not the node's, too.
	load(ctx context.Context, keyspace, table, dir string, foreign bool) error
	// cleanup drops what is not the node's.
	cleanup(ctx context.Context, keyspace string) error
	// status says which nodes this one takes for dead, by address.
	status(ctx context.Context) (dead []string, err error)
	// setGuardrail sets the consistency levels that writes may not use (5.0).
	setGuardrail(ctx context.Context, levels string) error
	// forget drops the node's caches of roles, passwords and permissions.
	forget(ctx context.Context) error
}

func newAdmin(c *config) admin {
	if c.jolokia != "" {
		return newJolokia(c)
	}
	return nodetool{c}
}

// nodetool runs the server's own program; its start of a JVM takes most of each call's second.
type nodetool struct{ c *config }

// javaOptions names the variable from which every JVM takes options.
const javaOptions = "JAVA_TOOL_OPTIONS"

// outputLimit bounds what is kept of the program's output.
const outputLimit = 1 << 20

type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, outputLimit-l.Len()))])
	return len(p), nil
}

func (n nodetool) run(ctx context.Context, args ...string) (string, error) {
	host, port, ok := strings.Cut(n.c.jmx, ":")
	if i := strings.LastIndex(n.c.jmx, ":"); ok && i >= 0 {
		host, port = n.c.jmx[:i], n.c.jmx[i+1:]
	}
	argv := []string{"-h", host, "-p", port}
	if n.c.jmxUser != "" {
		argv = append(argv, "-u", n.c.jmxUser, "-pwf", n.c.jmxFile)
	}
	cmd := exec.CommandContext(ctx, n.c.nodetool, append(argv, args...)...)
	if os.Getenv(javaOptions) == "" { // a JVM that lives for a second gains nothing from the second compiler
		cmd.Env = append(os.Environ(), javaOptions+"=-XX:TieredStopAtLevel=1")
	}
	cmd.WaitDelay = time.Second
	var out, errOut limited
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s: nodetool %s: %w", n.c.target, args[0], ctx.Err())
		}
		said := errOut.String()
		if first, rest, ok := strings.Cut(said, "\n"); ok && strings.Contains(first, javaOptions) {
			said = rest // the JVM tells that it has read the variable
		}
		text := strings.TrimSpace(said + " " + out.String())
		if len(text) > 600 {
			text = text[:600]
		}
		kind, advice := plugins.ErrUnavailable, "see the server's system.log"
		var exit *exec.ExitError
		switch {
		case !errors.As(err, &exit):
			kind, advice = plugins.ErrConfig, "name the program in option nodetool of the estate file"
		case strings.Contains(text, "Authentication failed") || strings.Contains(text, "Credentials required"):
			kind, advice = plugins.ErrAuth, "check jmx_user and jmx_password_file in the estate file"
		case strings.Contains(text, "Failed to connect"):
			advice = "check option jmx in the estate file"
		}
		return "", fmt.Errorf("%s: nodetool %s on %s: %w: %w: %s: %s", n.c.target, args[0], n.c.self.Name, kind, err, text, advice)
	}
	return out.String(), nil
}

func (n nodetool) snapshot(ctx context.Context, tag string, keyspaces []string) error {
	_, err := n.run(ctx, append([]string{"snapshot", "-t", tag, "--"}, keyspaces...)...)
	return err
}

func (n nodetool) clearSnapshot(ctx context.Context, tag string) error {
	_, err := n.run(ctx, "clearsnapshot", "-t", tag)
	return err
}

func (n nodetool) load(ctx context.Context, keyspace, table, dir string, foreign bool) error {
	args := []string{"import"}
	if foreign {
		args = append(args, "-t")
	}
	out, err := n.run(ctx, append(args, "--", keyspace, table, dir)...)
	if err == nil && strings.Contains(out, "failed to import") {
		err = fmt.Errorf("%s: import into %s.%s: %w: %s", n.c.target, keyspace, table, plugins.ErrData, strings.TrimSpace(out))
	}
	return err
}

func (n nodetool) cleanup(ctx context.Context, keyspace string) error {
	_, err := n.run(ctx, "cleanup", "--", keyspace)
	return err
}

func (n nodetool) status(ctx context.Context) ([]string, error) {
	out, err := n.run(ctx, "status")
	if err != nil {
		return nil, err
	}
	var dead []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && len(f[0]) == 2 && f[0] != "UN" && strings.ContainsAny(f[0][:1], "UD") && strings.ContainsAny(f[0][1:], "NLJM") {
			dead = append(dead, f[1]+" is "+f[0])
		}
	}
	return dead, nil
}

// guardrailName is the guardrail's name for nodetool, 5.0 and newer.
const guardrailName = "write_consistency_levels_disallowed"

func (n nodetool) setGuardrail(ctx context.Context, levels string) error {
	if levels == "" {
		levels = "null"
	}
	_, err := n.run(ctx, "setguardrailsconfig", guardrailName, levels)
	return err
}

func (n nodetool) forget(ctx context.Context) error {
	var errs []error
	for _, cache := range []string{"invalidaterolescache", "invalidatecredentialscache", "invalidatepermissionscache"} {
		_, err := n.run(ctx, cache)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
