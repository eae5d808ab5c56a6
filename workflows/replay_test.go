package workflows_test

import (
	"path/filepath"
	"testing"

	sdk "go.temporal.io/sdk/worker"

	"github.com/csobackup/cso_backupnrestore/worker"
)

// TestReplay replays every recorded history: a run that an older version began
// must be one that this version can go on with. A failure here means that a
// behaviour change needs workflow.GetVersion; histories are never recorded anew.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "history", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("testdata/history holds no history: nothing would be replayed; `make record-history` records those of the landed commit")
	}
	replayer := sdk.NewWorkflowReplayer()
	worker.Workflows(replayer)
	for _, f := range files {
		t.Run(filepath.Base(filepath.Dir(f))+"/"+filepath.Base(f), func(t *testing.T) {
			if err := replayer.ReplayWorkflowHistoryFromJSONFile(nil, f); err != nil {
				t.Errorf("this version cannot go on with a run that an older one began: %v", err)
			}
		})
	}
}
