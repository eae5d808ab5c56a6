package store

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// The page that describes the format is right: its shell block, run as it
// stands, recovers every byte of a backup.
func TestRecoveryByHand(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"age", "zstd", "python3", "sha256sum", "bash"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%v: install it (Debian: apt-get install age zstd python3 coreutils bash)", err)
		}
	}
	page, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "```sh\n")
	block, _, closed := strings.Cut(block, "```\n")
	if !ok || !closed {
		t.Fatal("the page has no shell block")
	}
	x := newSite(t)
	un := table(3, 2000, 700)
	un.form = plugins.Unordered
	d := data{
		"db/table": table(1, 12_000, 1000), "un": un, "small": pairs("a", "1", "b", ""), "empty": {form: plugins.Ordered},
		"f": {form: plugins.File, file: noise(1, 1<<20)}, "big": {form: plugins.File, file: bytes.Repeat([]byte("abc "), 9<<20)},
	}
	x.backup("D", d)
	ref, _ := x.backup("D", d) // shared pieces are ordinary files too
	out := filepath.Join(t.TempDir(), "out")
	run := func() ([]byte, error) {
		c := exec.CommandContext(t.Context(), "bash", "-c", block)
		c.Env = append(os.Environ(), "BACKUP="+x.s.Dir(ref), "IDENTITY="+filepath.Join(x.keyDir, "identity"), "OUT="+out)
		return c.CombinedOutput()
	}
	if b, err := run(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	index, err := os.ReadFile(filepath.Join(out, "INDEX"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for l := range strings.Lines(string(index)) {
		f := strings.Split(strings.TrimSpace(l), "\t")
		var name string
		if err := json.Unmarshal([]byte(f[3]), &name); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, f[0]))
		if err != nil {
			t.Fatal(err)
		}
		got := content{form: plugins.Form(f[1]), file: b}
		if got.form != plugins.File {
			got.file, got.records = nil, parseLines(t, b)
		}
		if err := same(d[name], got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		seen++
	}
	if seen != len(d) {
		t.Errorf("%d artifacts recovered of %d", seen, len(d))
	}
	// The block notices damage.
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	mf := filepath.Join(x.s.Dir(ref), fileManifest)
	b, err := os.ReadFile(mf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, mf, bytes.Replace(b, []byte(`"tool": "test"`), []byte(`"tool": "tesT"`), 1))
	if b, err := run(); err == nil || !strings.Contains(string(b), "the manifest was changed") {
		t.Errorf("a changed manifest is recovered from: %v\n%s", err, b)
	}
}

func parseLines(t *testing.T, b []byte) (out [][2][]byte) {
	t.Helper()
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r struct{ Key, Value string }
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		k, err := hex.DecodeString(r.Key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := hex.DecodeString(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, [2][]byte{k, v})
	}
	return out
}
