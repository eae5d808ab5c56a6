package zookeeper

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// Fingerprint lists every node with its data's hash (null and empty differ),
// its ACL in order, its kind where it is a container or has a TTL, and the next
// number of every parent that has sequential children.
//
// Not compared: /zookeeper/config and quota statistics, which the server
// writes; czxid, mzxid and times, which no client can set; data versions.
// Ephemeral nodes are listed as kind "ephemeral", which the lab does not sum.
// All members of an ensemble must hold the same tree, or there is no fingerprint.
func (e *Engine) Fingerprint(ctx context.Context, members []engine.Member, w io.Writer) error {
	lines, zxid, err := treeLines(ctx, members[0])
	if err != nil {
		return err
	}
	for _, m := range members[1:] {
		own, _, err := treeLines(ctx, m)
		if err != nil {
			return err
		}
		if !slices.Equal(own, lines) {
			return fmt.Errorf("%s holds another tree than %s: the ensemble has diverged, or somebody writes", m.Name, members[0].Name)
		}
	}
	kinds, err := kindLines(ctx, members[0], zxid)
	if err != nil {
		return err
	}
	lines = append(lines, kinds...)
	slices.Sort(lines)
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return nil
}

func quote(s string) string { return strconv.QuoteToASCII(s) }

// treeLines reads a member's whole tree, sorted, and the newest zxid in it.
func treeLines(ctx context.Context, m engine.Member) (lines []string, newest int64, err error) {
	conns, err := dialSome(ctx, m)
	defer closeAll(conns)
	if err != nil {
		return nil, 0, err
	}
	if _, err := conns[0].Sync("/"); err != nil { // a follower may be behind the leader
		return nil, 0, fmt.Errorf("sync %s: %w", m.Name, err)
	}
	// Which of the sequential children are ephemeral is known only when all are seen.
	next, lasting := map[string]int64{}, map[string]bool{}
	err = walk(ctx, conns, "/", readAll, func(s seen) {
		newest = max(newest, s.stat.Czxid, s.stat.Mzxid, s.stat.Pzxid)
		// cversion as shown is 2 × creates − children (DataNode.copyStat); the next number is creates.
		next[s.path] = (int64(s.stat.Cversion) + int64(s.stat.NumChildren)) / 2
		if s.stat.EphemeralOwner != 0 {
			lines = append(lines, "ephemeral\t"+quote(s.path)+"\t-")
			return
		}
		parent := filepath.Dir(s.path)
		if sequential.MatchString(s.path) {
			lasting[parent] = true
		}
		if strings.HasSuffix(s.path, "/zookeeper_stats") && strings.HasPrefix(s.path, "/zookeeper/quota/") {
			return
		}
		data := "null"
		if s.data != nil {
			data = fmt.Sprintf("length=%d sha256=%x", len(s.data), sha256.Sum256(s.data))
		}
		lines = append(lines, "node\t"+quote(s.path)+"\t"+data, "acl\t"+quote(s.path)+"\t"+aclText(s.acl))
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the tree of %s: %w", m.Name, err)
	}
	for parent := range lasting {
		lines = append(lines, fmt.Sprintf("sequence\t%s\tnext=%d", quote(parent), next[parent]))
	}
	slices.Sort(lines)
	return lines, newest, nil
}

func aclText(acl []zk.ACL) string {
	var parts []string
	for _, a := range acl {
		parts = append(parts, fmt.Sprintf("%s:%s:%d", a.Scheme, quote(a.ID), a.Perms))
	}
	return strings.Join(parts, ",")
}

//go:embed Kinds.java
var kindsProgram []byte

// kindLines asks the server's own classes, which read snapshot and log of the
// data directory, for the kinds of nodes. Nothing older than zxid is accepted.
func kindLines(ctx context.Context, m engine.Member, zxid int64) ([]string, error) {
	classes, err := compileKinds(ctx, m)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(15 * time.Second); ; {
		lines, last, err := runKinds(ctx, m, classes)
		if err != nil {
			return nil, err
		}
		if last >= zxid {
			return lines, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("the data directory of %s ends at zxid %x, the tree at %x", m.Name, last, zxid), ctx.Err())
		}
		time.Sleep(100 * time.Millisecond) // a follower's log may be flushed a moment after it answers
	}
}

// compileKinds keeps the compiled program in the member's directory, by its source's hash.
func compileKinds(ctx context.Context, m engine.Member) (classes string, err error) {
	classes = filepath.Join(m.Dir, fmt.Sprintf("kinds-%x", sha256.Sum256(kindsProgram))[:22])
	if _, err := os.Stat(filepath.Join(classes, "Kinds.class")); err == nil {
		return classes, nil
	}
	// Two fingerprints may run at the same time: each compiles for itself, and the renamed result is the same.
	tmp, err := os.MkdirTemp(m.Dir, "kinds-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the program that reads node kinds: %w", err)
	}
	source := filepath.Join(tmp, "Kinds.java")
	if err := os.WriteFile(source, kindsProgram, 0o600); err != nil {
		return "", fmt.Errorf("write the program that reads node kinds: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "javac", "-cp", jar, "-d", tmp, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the program that reads node kinds: %w\n%s", err, out)
	}
	if err := os.Rename(tmp, classes); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep the program that reads node kinds: %w", err)
	}
	return classes, nil
}

func runKinds(ctx context.Context, m engine.Member, classes string) (lines []string, last int64, err error) {
	// Without the switch the server's classes take TTL nodes for ephemeral ones.
	argv := append(java(m.Dir+":"+classes, "512m"), "-Dzookeeper.extendedTypesEnabled=true", "Kinds", m.Options["data_dir"])
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, 0, fmt.Errorf("read node kinds from %s: %w\n%s%s", m.Options["data_dir"], err, problems.String(), out.String())
	}
	scanner := bufio.NewScanner(&out)
	if !scanner.Scan() {
		return nil, 0, fmt.Errorf("read node kinds from %s: no answer\n%s", m.Options["data_dir"], problems.String())
	}
	if last, err = strconv.ParseInt(scanner.Text(), 16, 64); err != nil {
		return nil, 0, fmt.Errorf("read node kinds from %s: %w", m.Options["data_dir"], err)
	}
	for scanner.Scan() {
		kind, path, _ := strings.Cut(scanner.Text(), "\t")
		if !strings.HasPrefix(path, bookkeeping+"/") {
			lines = append(lines, "kind\t"+quote(path)+"\t"+kind)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, 0, fmt.Errorf("read node kinds from %s: %w", m.Options["data_dir"], err)
	}
	return lines, last, nil
}
