// Package house checks the rules of the house that no linter knows.
package house_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const root = "../.."

// sources visits the Go files of the product and its tests.
func sources(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		n++
		visit(filepath.ToSlash(rel), b)
		return nil
	})
	if err != nil || n < 100 {
		t.Fatalf("%d files visited: %v", n, err)
	}
}

// TestNoDatabaseIsKnownByName: outside the component table, the components'
// own folders, plugins/all, the lab and tests, no database's name appears.
func TestNoDatabaseIsKnownByName(t *testing.T) {
	var names []string
	for _, c := range plugins.Components {
		if c.Database {
			names = append(names, c.Name)
		}
	}
	word := regexp.MustCompile(`(?i)\b(` + strings.Join(names, "|") + `)`)
	comment := regexp.MustCompile(`(?m)//.*$`)
	example := regexp.MustCompile(`(?m)^.*(cso_backupnrestore |--instance |--switch |-t \w+,|one instance).*$`) // in the help of a command
	sources(t, func(path string, text []byte) {
		switch {
		case strings.HasPrefix(path, "plugins/"), strings.HasPrefix(path, "test/"), strings.HasSuffix(path, "_test.go"):
			return
		}
		text = comment.ReplaceAll(text, nil)
		if strings.HasPrefix(path, "cli/") {
			text = example.ReplaceAll(text, nil)
		}
		if m := word.Find(text); m != nil {
			t.Errorf("%s names %s: ask the component table or an interface instead", path, m)
		}
	})
}

func TestFilesStaySmall(t *testing.T) {
	sources(t, func(path string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); n > 500 {
			t.Errorf("%s has %d lines: a room with more than one idea", path, n)
		}
	})
}

func TestNoInitNoSkipNoVagueRooms(t *testing.T) {
	odd := regexp.MustCompile(`(?m)^func init\(\)|\bt\.Skip|\bTO` + `DO\b`)
	vague := regexp.MustCompile(`(^|/)(utils?|common|helpers?|misc|shared|base)/`)
	sources(t, func(path string, text []byte) {
		if m := odd.Find(text); m != nil {
			t.Errorf("%s: %s", path, m)
		}
		if vague.MatchString(path) {
			t.Errorf("%s: the room's name says nothing", path)
		}
	})
}
