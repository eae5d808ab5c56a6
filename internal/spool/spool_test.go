package spool_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/csobackup/cso_backupnrestore/internal/spool"
)

func TestMemoryThenDisk(t *testing.T) {
	dir := t.TempDir()
	s := spool.New(dir, 100_000)
	var refs []spool.Ref
	want := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "canary-%d;", i), i%500) }
	for i := range 3000 {
		r, err := s.Put(want(i))
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, r)
	}
	var buf []byte
	for _, i := range []int{2999, 0, 1, 17, 1500, 499, 500, 2500, 2998} {
		got, err := s.Get(refs[i], &buf)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want(i)) || refs[i].Len() != len(want(i)) {
			t.Errorf("string %d came back as %d bytes, want %d", i, len(got), len(want(i)))
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the spool's file has a name: %v %v", left, err)
	}
	if fds := openFiles(t); bytes.Contains(fds, []byte("canary-")) {
		t.Error("spooled bytes lie in clear in the file")
	} else if len(fds) < 100_000 {
		t.Errorf("only %d bytes went to the disk: the bound of memory was not kept", len(fds))
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(refs[10], nil); err == nil {
		t.Error("a closed spool still answers")
	}
}

// openFiles reads every unlinked spool file of this process.
func openFiles(t *testing.T) []byte {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && bytes.Contains([]byte(to), []byte(".spool-")) {
			b, err := os.ReadFile(l)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
	}
	return all
}
