package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// canaries are secrets and data that may be nowhere but in servers, protected
// files and encrypted pieces.
func (b *bench) canaries() map[string][]byte {
	b.t.Helper()
	out := map[string][]byte{}
	for _, line := range b.env {
		if k, v, ok := strings.Cut(line, "="); ok && strings.HasSuffix(k, "PASSWORD") && v != "" {
			out[k] = []byte(v)
		}
	}
	for _, k := range []string{"LAB_MARIADB_1_PASSWORD", "LAB_ETCD_1_PASSWORD", "LAB_ARANGODB_1_PASSWORD"} {
		if len(out[k]) == 0 {
			b.t.Fatalf("%s is not among the canaries", k)
		}
	}
	_, auth, _ := strings.Cut(b.value("LAB_ZOOKEEPER_1_AUTH"), ":") // digest super:PASSWORD
	out["ZooKeeper's password"] = []byte(auth)
	out["a value in etcd"] = []byte("canary-value-7f3a91c5-in-etcd")
	b.etcdctl("put", "/cso/canary", string(out["a value in etcd"]))
	out["a protected password"] = []byte("canary-password-51be0d77-in-a-file")
	b.check(os.WriteFile(b.path("secrets-1", "etc", "secrets", "canary.pw"), out["a protected password"], 0o600))
	identity, err := os.ReadFile(b.path("state", "keys", "identity"))
	b.check(err)
	i := bytes.Index(identity, []byte("AGE-SECRET-KEY-"))
	out["the identity"] = bytes.TrimSpace(identity[i:])
	for _, k := range []string{"content.key", "manifest.key"} {
		key, err := os.ReadFile(b.path("state", "keys", k))
		b.check(err)
		out[k], out[k+" in hexadecimal"] = key, []byte(hex.EncodeToString(key))
	}
	for name, c := range out {
		if len(c) < 8 {
			b.t.Fatalf("the canary %s is too short to be looked for", name)
		}
	}
	return out
}

// TestSecrecy: no secret and no data in histories, the SQLite file, logs,
// arguments of processes and what the store holds in clear.
func TestSecrecy(t *testing.T) {
	b := whole.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 13, "small"))
	hidden := b.canaries()
	const name = "SECRECY" // the opposite of a canary: it must be found everywhere, or nothing was searched

	ctxArgs, stop := context.WithCancel(ctx)
	var arguments bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { watchArguments(ctxArgs, &arguments) })
	b.backup(name, "-m", "yes")
	b.check(b.Wreck(ctx, 13))
	b.restored("-s", name, "--confirm", name)
	// A refused log-in is where programs like to tell passwords.
	file := b.mariadbPasswordFile()
	password, err := os.ReadFile(file)
	b.check(err)
	wrong := []byte("canary-wrong-password-20c4")
	b.check(os.WriteFile(file, wrong, 0o600))
	hidden["a wrong password"] = wrong
	e := b.cso("-b", "backup", "-s", name+"2")
	b.check(os.WriteFile(file, password, 0o600))
	if e.code == 0 {
		t.Error("a backup with a wrong password succeeded")
	}
	b.settled()
	b.noCoreFiles()
	b.crash("worker")
	stop()
	wg.Wait()

	places := map[string][]byte{
		"arguments of processes": arguments.Bytes(),
		"what the command said":  []byte(e.stdout + e.stderr),
		"histories":              b.histories(),
		"SQLite file":            b.files(b.path("state", "temporal"), func(string) bool { return true }),
		"the state directory": b.files(b.path("state"), func(p string) bool {
			return !strings.Contains(p, "/state/keys/") && !strings.Contains(p, "/state/pki/")
		}),
		"the worker's log":    b.files(b.path("log"), func(p string) bool { return strings.HasPrefix(filepath.Base(p), "worker") }),
		"cso-temporald's log": b.files(b.path("log"), func(p string) bool { return strings.HasPrefix(filepath.Base(p), "temporald") }),
		"the store in clear":  b.files(b.path("backups"), func(p string) bool { return !strings.HasSuffix(p, ".age") }),
		"encrypted pieces":    b.files(b.path("backups"), func(p string) bool { return strings.HasSuffix(p, ".age") }),
	}
	for place, content := range places {
		for what, secret := range hidden {
			if bytes.Contains(content, secret) {
				t.Errorf("%s: in %s", what, place)
			}
		}
		// Pieces, and a server that has nothing to report, name no backup.
		named := place != "encrypted pieces" && place != "cso-temporald's log" && place != "what the command said"
		if len(content) == 0 || (named && !bytes.Contains(content, []byte(name))) {
			t.Errorf("%s (%d bytes) do not even tell the backup's name: nothing was searched", place, len(content))
		}
	}
}

func (b *bench) mariadbPasswordFile() string {
	b.t.Helper()
	members, err := b.Members("mariadb", "")
	b.check(err)
	_, options, err := b.Target(members[0].Name)
	b.check(err)
	return options["password_file"]
}

// histories exports every history that Temporal holds, payloads as they are on the wire.
func (b *bench) histories() []byte {
	b.t.Helper()
	ctx := b.t.Context()
	var all bytes.Buffer
	var page []byte
	for {
		list, err := b.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{NextPageToken: page})
		b.check(err)
		for _, e := range list.Executions {
			it := b.client.GetWorkflowHistory(ctx, e.Execution.WorkflowId, e.Execution.RunId, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			for it.HasNext() {
				event, err := it.Next()
				b.check(err)
				raw, err := proto.Marshal(event)
				b.check(err)
				all.Write(raw)
			}
		}
		if page = list.NextPageToken; len(page) == 0 {
			return all.Bytes()
		}
	}
}

// files joins the chosen files below a directory.
func (b *bench) files(dir string, chosen func(string) bool) []byte {
	b.t.Helper()
	var all bytes.Buffer
	b.check(filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !chosen(p) {
			return err
		}
		content, err := os.ReadFile(p)
		all.Write(content)
		return err
	}))
	return all.Bytes()
}

// noCoreFiles: the kernel writes no core file of the three programs, which is
// told by the limit that they put on themselves, and none lies about.
func (b *bench) noCoreFiles() {
	b.t.Helper()
	mine := []byte("CSO_BACKUP_STATE=" + b.path("state") + "\x00")
	told := []byte("\x00" + b.path("state") + "\x00") // as an argument
	seen := map[string]bool{}
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	b.check(err)
	for _, p := range list {
		environ, err := os.ReadFile(p)
		argv, aerr := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
		exe, eerr := os.Readlink(filepath.Join(filepath.Dir(p), "exe"))
		ours := bytes.Contains(environ, mine) || bytes.Contains(argv, told)
		if name := filepath.Base(exe); err == nil && aerr == nil && eerr == nil && strings.HasPrefix(name, "cso-") && ours {
			limits, err := os.ReadFile(filepath.Join(filepath.Dir(p), "limits"))
			b.check(err)
			seen[name] = true
			if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
				b.t.Errorf("%s may leave a core file:\n%s", name, limits)
			}
		}
	}
	if !seen["cso-backup-worker"] || !seen["cso-temporald"] {
		b.t.Errorf("only looked at %v", seen)
	}
	if cores := b.files(b.Dir(), func(p string) bool { return filepath.Base(p) == "core" || strings.HasPrefix(filepath.Base(p), "core.") }); len(cores) > 0 {
		b.t.Error("there is a core file")
	}
}

// crash ends a process as a fault would, with a trace of all that runs in it
// and, if the kernel would write one, a core file; then it is started again.
func (b *bench) crash(name string) {
	b.t.Helper()
	p := b.process(name)
	b.check(unix.Kill(p.pid, unix.SIGABRT))
	b.eventually(10*time.Second, name+" has crashed", func() bool { pid, err := b.Pid(name); return err == nil && pid == 0 })
	b.check(b.StartMember(b.t.Context(), name))
	log, err := os.ReadFile(b.path("log", name+".log"))
	b.check(err)
	if !bytes.Contains(log, []byte("SIGABRT")) {
		b.t.Errorf("%s left no trace of its crash in its log: nothing was forced", name)
	}
	b.noCoreFiles()
}

// watchArguments collects the arguments and titles of every process it sees.
func watchArguments(ctx context.Context, out *bytes.Buffer) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range list {
			if text, err := os.ReadFile(p); err == nil && !seen[string(text)] {
				seen[string(text)] = true
				fmt.Fprintf(out, "%s\n", bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
