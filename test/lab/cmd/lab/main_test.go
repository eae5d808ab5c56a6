package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, progress bytes.Buffer
	err := run(t.Context(), args, &out, &progress)
	return out.String(), err
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatalf("lab %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TestStory is a lab's life as its user types it.
func TestStory(t *testing.T) {
	dir, err := os.MkdirTemp("", "lab-cmd-")
	if err != nil {
		t.Fatal(err)
	}
	d := "--dir=" + dir
	t.Cleanup(func() {
		if err := run(context.Background(), []string{"down", d}, os.Stderr, os.Stderr); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	must(t, "up", d, "--only", "etcd,secrets", "--servers-only")
	must(t, "up", d, "--servers-only")
	if out := must(t, "env", d); !strings.Contains(out, "export CSO_BACKUP_ROOT='"+filepath.Join(dir, "backups")+"'\n") || !strings.Contains(out, "export LAB_ETCD_1_ENDPOINT='https://127.0.0.1:") {
		t.Errorf("env:\n%s", out)
	}
	must(t, "fill", d, "--seed", "1", "--size", "small")
	before := must(t, "fingerprint", d)
	must(t, "kill", d, "--member", "etcd-1")
	if out := must(t, "status", d); !strings.Contains(out, "stopped") {
		t.Errorf("status after kill:\n%s", out)
	}
	out, err := command(t, "control", d, "status", "etcd-1")
	var code exitCode
	if !errors.As(err, &code) || code != 3 || out != "stopped\n" {
		t.Errorf("control status of a stopped member: %q, %v", out, err)
	}
	must(t, "start", d, "--member", "etcd-1")
	must(t, "freeze", d, "--member", "etcd-1")
	if out := must(t, "status", d); !strings.Contains(out, "frozen") {
		t.Errorf("status after freeze:\n%s", out)
	}
	must(t, "thaw", d, "--member", "etcd-1")
	if after := must(t, "fingerprint", d); after != before {
		t.Error("kill, start, freeze and thaw changed the content")
	}
	must(t, "wreck", d, "--seed", "1", "--component", "etcd")
	summary := must(t, "fingerprint", d, "--summary")
	var same, other int
	for line := range strings.Lines(summary) {
		if strings.Contains(before, line) {
			same++
		} else {
			other++
		}
	}
	if same != 1 || other != 1 {
		t.Errorf("only etcd was wrecked, yet the sums are\n%sbefore:\n%s", summary, before[strings.LastIndex(before, "fingerprint"):])
	}
	must(t, "fill", d, "--seed", "1")
	if after := must(t, "fingerprint", d); after != before {
		t.Error("filling with the same seed must bring everything back")
	}
	must(t, "down", d)
	must(t, "down", d)
	if out := must(t, "status", d); strings.Contains(out, "running") {
		t.Errorf("status after down:\n%s", out)
	}
}

func TestMistakes(t *testing.T) {
	empty := "--dir=" + t.TempDir()
	for want, args := range map[string][]string{
		"--dir is missing":       {"env"},
		"holds no lab":           {"fill", empty},
		"unexpected argument":    {"down", empty, "now"},
		"component=version":      {"up", empty, "--version", "3.7"},
		"exit 64":                {"up", empty, "--nonsense"},
		"give 1 or 3":            {"up", empty, "--members", "5", "--servers-only"},
		`unknown component "db"`: {"up", empty, "--only", "db", "--servers-only"},
	} {
		if _, err := command(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("lab %s: got %v, want %q", strings.Join(args, " "), err, want)
		}
	}
	if out := must(t, "help"); !strings.Contains(out, "fingerprint") {
		t.Errorf("help:\n%s", out)
	}
}
