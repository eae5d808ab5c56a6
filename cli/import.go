package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/store"
)

func (a *app) importCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "import DIR", Short: "adopt a backup directory that was copied here", Args: exactly(1, "DIR"),
		Long: `Adopt the directory of one backup (NAME/TIMESTAMP) that was copied from
elsewhere, after proving its seal and every piece. The directory itself stays as
it is; it may also lie at its place in the store already.

On a new installer-vm, put the copy of the identity at its place first; the other
keys come out of the backup.`,
		Example: "  cso_backupnrestore import /media/usb/MAR09/2019-03-09T04-00-07Z",
	}, func(ctx context.Context, args []string) (*outcome, error) { return a.adopt(ctx, args[0]) })
}

func (a *app) adopt(ctx context.Context, dir string) (*outcome, error) {
	if dir == "" {
		return nil, usage("type: cso_backupnrestore import DIR, the directory that holds manifest.json", "the name of the directory is empty")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, problem.New(problem.Failed, "", "import: %w", err)
	}
	if err := a.adoptKeys(abs); err != nil {
		return nil, err
	}
	r, err := keys.LoadReader(a.paths.Keys())
	if err != nil {
		return nil, a.keyError(fmt.Errorf("import: %w", err))
	}
	if err := a.checkRoot(); err != nil {
		return nil, err
	}
	s, err := store.Open(a.paths.Root)
	if err != nil {
		return nil, problem.New(problem.Failed, "see cso_backupnrestore doctor", "import: %w", err)
	}
	defer s.Close()
	ref, err := s.Import(ctx, abs, r)
	if errors.Is(err, store.ErrSealed) {
		return nil, problem.New(problem.Failed, "rename neither; remove the one that is not wanted", "import: %w", err)
	}
	if errors.Is(err, store.ErrNoSuchBackup) || errors.Is(err, store.ErrIncomplete) {
		return nil, problem.New(problem.NoBackup, "name the directory that holds manifest.json: …/NAME/TIMESTAMP", "%w", err)
	}
	if err != nil {
		return nil, storeError(err)
	}
	return &outcome{Result: map[string]string{"backup": ref.String()}, Message: ref.String() + " imported, every piece proven",
		Next: []string{"cso_backupnrestore restore " + ref.String() + " --plan"}}, nil
}

// adoptKeys sets up the keys of a new host, which has the identity and nothing
// else yet, from those that every backup carries wrapped.
func (a *app) adoptKeys(dir string) error {
	if !keys.Bare(a.paths.Keys()) {
		return nil
	}
	m, err := store.Peek(dir)
	if err != nil {
		return storeError(fmt.Errorf("import: %w", err))
	}
	identity, err := os.ReadFile(a.identityFile())
	if err != nil {
		return problem.New(problem.Key, "run this as root on the installer-vm", "import: %w", err)
	}
	if err := keys.Adopt(a.paths.Keys(), identity, m.Keys); err != nil {
		return storeError(fmt.Errorf("import: %w", err))
	}
	a.note("the keys of this host are those of the backup")
	return nil
}
