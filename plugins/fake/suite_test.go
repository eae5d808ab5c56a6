package fake

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// sabotageEnv breaks the plugin in one way, to see that the suite notices.
const sabotageEnv = "FAKE_SABOTAGE"

// subject is the plugin under test, sabotaged in child processes of TestSuiteNotices.
func subject() plugins.Plugin {
	if how := os.Getenv(sabotageEnv); how != "" {
		return saboteur{New(component), how}
	}
	return New(component)
}

type saboteur struct {
	*Plugin
	how string
}

func (p saboteur) Open(ctx context.Context, t plugins.Target) (plugins.Session, error) {
	s, err := p.Plugin.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return sabotaged{s.(*session), p.how}, nil
}

type sabotaged struct {
	*session
	how string
}

func (s sabotaged) Restore(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	switch s.how {
	case "no epoch":
		run.Epoch = 0
	case "always writes":
		_ = s.db.Replace(ctx, run.Epoch, "table 0", func(func(k, v []byte) error) error { return nil })
	case "leaks":
		go func() { select {} }()
	case "deaf":
		ctx = context.WithoutCancel(ctx)
	}
	return s.session.Restore(ctx, run, r)
}

func (s sabotaged) Compare(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) ([]plugins.Difference, error) {
	d, err := s.session.Compare(ctx, run, r)
	switch s.how {
	case "blind":
		return nil, err
	case "blames itself":
		for i := range d {
			d[i].Foreign = false
		}
	}
	return d, err
}

func TestSuiteNotices(t *testing.T) {
	for how, at := range map[string]string{
		"no epoch":      "frozen_attempt",
		"always writes": "second_restore_changes_nothing",
		"leaks":         "round_trip",
		"deaf":          "cancelled_context",
		"blind":         "round_trip",
		"blames itself": "writer_during_restore",
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestConformance$/^"+at+"$")
			cmd.Env = append(os.Environ(), sabotageEnv+"="+how)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("the suite passes a plugin that is sabotaged: %s", how)
			} else if !strings.Contains(string(out), "--- FAIL: TestConformance/"+at) {
				t.Errorf("case %s did not fail:\n%s", at, out)
			}
		})
	}
}
