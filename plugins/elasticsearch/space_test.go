package elasticsearch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// full: a full disk under path.repo. It needs the right to mount, so it runs only when versions were asked for.
func (s *stand) full(t *testing.T) {
	a := client(t, s.on)
	a.clear()
	a.do("PUT", "/heavy", one)
	for i := range 8 {
		var b strings.Builder
		for k := range 500 {
			fmt.Fprintf(&b, `{"index":{"_id":"%d-%d"}}`+"\n"+`{"t":"%x %x"}`+"\n", i, k, i*k*k*7919, k*k*k*i*104729)
		}
		a.do("POST", "/heavy/_bulk?filter_path=errors", b.String())
	}
	a.do("POST", "/heavy/_flush", nil)
	a.do("POST", "/heavy/_forcemerge?max_num_segments=1", nil)
	a.do("POST", "/heavy/_refresh", nil)
	ses := open(t, s.on)
	m, _ := backup(t, ses)
	want := a.fingerprint()
	var st struct {
		Indices map[string]struct {
			Total struct {
				Store struct {
					Bytes int64 `json:"size_in_bytes"`
				} `json:"store"`
			} `json:"total"`
		} `json:"indices"`
	}
	a.get("/heavy/_stats/store", &st)
	size := st.Indices["heavy"].Total.Store.Bytes
	for _, c := range []struct {
		name string
		free int64
	}{{"less than the estimate", size / 2}, {"just the estimate", size + 8<<10}} {
		t.Run(c.name, func(t *testing.T) {
			at := filepath.Join(s.on.Members[0].Options["repo_dir"], "cso-backup")
			must(t, os.MkdirAll(at, 0o700))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			must(t, unix.Mount("none", at, "tmpfs", 0, fmt.Sprintf("size=%d", c.free)))
			defer func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) }()
			if _, err := ses.Backup(ctx, run(t, plugins.OpBackup), plugintest.NewMemory()); !errors.Is(err, plugins.ErrSpace) {
				t.Errorf("backup: %v, want ErrSpace", err)
			}
			a.do("PUT", "/heavy/_doc/late?refresh=true", `{"t":"late"}`)
			if _, err := ses.Restore(ctx, run(t, plugins.OpRestore), m); !errors.Is(err, plugins.ErrSpace) {
				t.Errorf("restore: %v, want ErrSpace", err)
			}
			if code, _ := a.try("GET", "/heavy/_doc/late", nil); code != 200 {
				t.Errorf("the refused restore touched the index: %d", code)
			}
		})
	}
	restore(t, ses, m)
	same(t, want, a.fingerprint())
}
