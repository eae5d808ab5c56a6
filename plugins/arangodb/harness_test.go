package arangodb_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/arangodb"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

// simulatorEnv makes this test binary a simulator: a process of its own, so that it can be killed and its memory is not the plugin's.
const simulatorEnv = "CSO_TEST_ARANGOSIM"

func TestMain(m *testing.M) {
	if cfg := os.Getenv(simulatorEnv); cfg != "" {
		if err := simulate(cfg); err != nil {
			fmt.Fprintln(os.Stderr, "simulator:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if job := os.Getenv(workerEnv); job != "" {
		work(job)
		return
	}
	plugintest.Main(m, arangodb.New())
}

// simulate runs until the parent closes the standard input, or ends.
func simulate(cfg string) error {
	signal.Ignore(syscall.SIGINT) // the terminal's interrupt is for the parent, which then closes the input
	var c server.Config
	if err := json.Unmarshal([]byte(cfg), &c); err != nil {
		return err
	}
	s, err := server.Start(c)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(s.Endpoints(), " "))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return s.Close()
}

const rootPassword = "r00t-päss:word"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// simulator is a running simulator process.
type simulator struct {
	cfg  server.Config
	urls []string
	cmd  *exec.Cmd
	in   io.Closer
}

// start starts a simulator, which ends with the test.
func start(t testing.TB, cfg server.Config) *simulator {
	t.Helper()
	if cfg.Dir == "" {
		dir, err := os.MkdirTemp(scratchRoot(), "arangosim-*")
		must(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		cfg.Dir = dir
	}
	cfg.Auth, cfg.Password = true, rootPassword
	s := &simulator{cfg: cfg}
	s.run(t)
	t.Cleanup(func() { s.kill() })
	return s
}

func scratchRoot() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (s *simulator) run(t testing.TB) {
	t.Helper()
	b, err := json.Marshal(s.cfg)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), simulatorEnv+"="+string(b))
	s.cmd.Stderr = os.Stderr
	s.in, err = s.cmd.StdinPipe()
	must(t, err)
	out, err := s.cmd.StdoutPipe()
	must(t, err)
	must(t, s.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the simulator did not start: %v", err)
	}
	s.urls = strings.Fields(line)
	s.cfg.Listen = strings.TrimPrefix(s.urls[0], "http://")
	s.cfg.ListenMore = nil
	for _, u := range s.urls[1:] {
		s.cfg.ListenMore = append(s.cfg.ListenMore, strings.TrimPrefix(u, "http://"))
	}
}

// kill ends the process as a crash does.
func (s *simulator) kill() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

// target is the instance as the estate file names it.
func (s *simulator) target(t testing.TB, instance string) plugins.Target {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte(rootPassword+"\n"), 0o600))
	out := plugins.Target{Component: "arangodb", Instance: instance}
	for i, u := range s.urls {
		out.Members = append(out.Members, plugins.Member{Name: fmt.Sprintf("arangodb-%d", i+1), VM: "vm", Address: u,
			Options: map[string]string{"password_file": file, "timeout": "20s"}})
	}
	return out
}

// superTarget is the instance with the server's JWT secret beside root's password.
func (s *simulator) superTarget(t testing.TB, instance string) plugins.Target {
	t.Helper()
	out := s.target(t, instance)
	for _, m := range out.Members {
		m.Options["jwt_secret_file"] = filepath.Join(s.cfg.Dir, "jwt.secret")
	}
	return out
}

// control does something to the simulator that no ArangoDB offers: see test/arangosim/README.md.
func (s *simulator) control(t testing.TB, method, path string, body, into any) {
	t.Helper()
	b, err := json.Marshal(body)
	must(t, err)
	req, err := http.NewRequest(method, s.urls[len(s.urls)-1]+"/_sim/"+path, bytes.NewReader(b))
	must(t, err)
	resp, err := plainHTTP.Do(req)
	must(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode >= 300 {
		t.Fatalf("%s: HTTP %d %s", path, resp.StatusCode, out)
	}
	if into != nil {
		must(t, json.Unmarshal(out, into))
	}
}

var plainHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

// api is a foreign client: plain HTTP, no code of the plugin or the driver.
type api struct {
	t        testing.TB
	base     string
	user, pw string
	http     *http.Client
}

func foreign(t testing.TB, on plugins.Target) *api {
	t.Helper()
	pw, err := on.Members[0].Secret("password")
	must(t, err)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	user := on.Members[0].Options["user"]
	if user == "" {
		user = "root"
	}
	return &api{t, on.Members[0].Address, user, pw, &http.Client{Transport: tr, Timeout: 2 * time.Minute}}
}

func (a *api) close() { a.http.CloseIdleConnections() }

// try sends one request; the answer's code and body.
func (a *api) try(method, db, path string, body any) (int, []byte, error) {
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(j)
	}
	req, err := http.NewRequest(method, a.base+"/_db/"+url.PathEscape(db)+path, in)
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth(a.user, a.pw)
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, out, err
}

// do fails the test when the answer is none of the codes (none given: below 300).
func (a *api) do(method, db, path string, body any, codes ...int) []byte {
	a.t.Helper()
	code, out, err := a.try(method, db, path, body)
	must(a.t, err)
	if len(codes) == 0 && code < 300 || slices.Contains(codes, code) {
		return out
	}
	a.t.Fatalf("%s %s%s: HTTP %d %.500s", method, db, path, code, out)
	return nil
}

func (a *api) get(db, path string, into any) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.do("GET", db, path, nil)))
	d.UseNumber()
	must(a.t, d.Decode(into))
}

type obj = map[string]any

func (a *api) databases() []string {
	var l struct{ Result []string }
	a.get("_system", "/_api/database", &l)
	slices.Sort(l.Result)
	return l.Result
}

type collectionInfo struct {
	Name     string
	IsSystem bool
	Type     int
}

func (a *api) collections(db string) []collectionInfo {
	var l struct{ Result []collectionInfo }
	a.get(db, "/_api/collection", &l)
	slices.SortFunc(l.Result, func(x, y collectionInfo) int { return strings.Compare(x.Name, y.Name) })
	return l.Result
}

// docs reads all documents by a cursor, as text without what the server gives out.
func (a *api) docs(db, coll string) []string {
	var out []string
	var r struct {
		Result  []json.RawMessage
		HasMore bool
		ID      string
	}
	b := a.do("POST", db, "/_api/cursor", obj{"query": "FOR d IN @@c RETURN d", "bindVars": obj{"@c": coll}, "batchSize": 1000})
	for {
		r.Result, r.HasMore = nil, false
		must(a.t, json.Unmarshal(b, &r))
		for _, d := range r.Result {
			out = append(out, given.ReplaceAllString(string(d), ""))
		}
		if !r.HasMore {
			slices.Sort(out)
			return out
		}
		b = a.do("POST", db, "/_api/cursor/"+r.ID, nil)
	}
}

var given = regexp.MustCompile(`"_(id|rev)":"[^"]*",?`)

// canonical is JSON with sorted attributes, without some of them.
func canonical(v obj, drop ...string) string {
	for _, d := range drop {
		delete(v, d)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// fingerprint is everything a client can see, one line for each object.
func fingerprint(t testing.TB, on plugins.Target) string {
	t.Helper()
	a := foreign(t, on)
	defer a.close()
	var b strings.Builder
	for _, db := range a.databases() {
		fmt.Fprintf(&b, "database\t%s\n", db)
		for _, c := range a.collections(db) {
			if strings.HasPrefix(c.Name, "_") && !slices.Contains([]string{"_graphs", "_aqlfunctions", "_apps", "_appbundles", "_jobs", "_queues"}, c.Name) {
				continue
			}
			for _, d := range a.docs(db, c.Name) {
				fmt.Fprintf(&b, "document\t%s\t%s\t%s\n", db, c.Name, d)
			}
			if c.IsSystem {
				continue
			}
			var p obj
			a.get(db, "/_api/collection/"+url.PathEscape(c.Name)+"/properties", &p)
			if k, ok := p["keyOptions"].(obj); ok {
				delete(k, "lastValue")
			}
			fmt.Fprintf(&b, "collection\t%s\t%s\t%s\n", db, c.Name, canonical(p, "id", "globallyUniqueId", "status", "statusString", "code", "error", "shards", "planId"))
			var l struct{ Indexes []obj }
			a.get(db, "/_api/index?collection="+url.QueryEscape(c.Name), &l)
			for _, x := range l.Indexes {
				if x["type"] == "primary" || x["type"] == "edge" {
					continue
				}
				fmt.Fprintf(&b, "index\t%s\t%s\t%s\n", db, c.Name, canonical(x, "id", "selectivityEstimate", "isNewlyCreated", "figures"))
			}
		}
		var views struct{ Result []obj }
		a.get(db, "/_api/view", &views)
		for _, v := range views.Result {
			var p obj
			a.get(db, "/_api/view/"+url.PathEscape(fmt.Sprint(v["name"]))+"/properties", &p)
			fmt.Fprintf(&b, "view\t%s\t%s\n", db, canonical(p, "id", "globallyUniqueId", "code", "error"))
		}
		var an struct{ Result []obj }
		a.get(db, "/_api/analyzer", &an)
		for _, x := range an.Result {
			if strings.Contains(fmt.Sprint(x["name"]), "::") {
				fmt.Fprintf(&b, "analyzer\t%s\t%s\n", db, canonical(x))
			}
		}
		var graphs struct{ Graphs []obj }
		a.get(db, "/_api/gharial", &graphs)
		for _, g := range graphs.Graphs {
			fmt.Fprintf(&b, "graph\t%s\t%s\n", db, canonical(g, "_id", "_rev"))
		}
		var fs struct{ Result []obj }
		a.get(db, "/_api/aqlfunction", &fs)
		for _, f := range fs.Result {
			fmt.Fprintf(&b, "function\t%s\t%s\n", db, canonical(f))
		}
		var tasks []obj
		a.get(db, "/_api/tasks", &tasks)
		for _, x := range tasks {
			if x["database"] == db {
				fmt.Fprintf(&b, "task\t%s\t%s\n", db, canonical(x, "created"))
			}
		}
	}
	fingerprintUsers(a, &b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// passwords that Fill and Wreck give: whether one of them opens the account is part of the fingerprint.
var passwords = []string{"", "first", "second"}

func fingerprintUsers(a *api, b *strings.Builder) {
	var users struct{ Result []obj }
	a.get("_system", "/_api/user", &users)
	for _, u := range users.Result {
		name := fmt.Sprint(u["user"])
		var grants struct{ Result obj }
		a.get("_system", "/_api/user/"+url.PathEscape(name)+"/database?full=true", &grants)
		for _, db := range grants.Result {
			if m, ok := db.(obj); ok {
				if cs, ok := m["collections"].(obj); ok {
					for c := range cs {
						if strings.HasPrefix(c, "_") {
							delete(cs, c)
						}
					}
				}
			}
		}
		opens := ""
		for _, pw := range append([]string{a.pw}, passwords...) {
			c := &api{a.t, a.base, name, pw, a.http}
			if code, _, err := c.try("GET", "_system", "/_api/version", nil); err == nil && code < 300 {
				opens += fmt.Sprintf(" %x", sha256.Sum256([]byte(pw)))
			}
		}
		fmt.Fprintf(b, "user\t%s\t%s\topens with%s\n", canonical(u), canonical(grants.Result), opens)
	}
}
