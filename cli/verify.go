package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func (a *app) verifyCommand(wire wireFunc) *cobra.Command {
	var quick bool
	cmd := wire(&cobra.Command{
		Use: "verify NAME[/TIMESTAMP]", Short: "read a backup back and prove it whole", Args: exactly(1, "NAME"), ValidArgsFunction: a.completeBackup,
		Long: `Read every piece of a backup, check it against the manifest, decrypt and decode
it. Nothing is changed; a damaged piece is named and put into quarantine.`,
		Example: "  cso_backupnrestore verify MAR09\n  cso_backupnrestore verify MAR09/2019-03-16T04 --quick",
	}, func(ctx context.Context, args []string) (*outcome, error) { return a.verify(ctx, args[0], quick) })
	cmd.Flags().BoolVar(&quick, "quick", false, "check sizes and hashes of what is stored, without decrypting")
	return cmd
}

func (a *app) verify(ctx context.Context, name string, quick bool) (*outcome, error) {
	ref, err := a.resolve(ctx, "NAME", name)
	if err != nil {
		return nil, err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := a.start(ctx, c, startOptions{
		id: workflows.VerifyPrefix + ref, kind: workflows.VerifyType, summary: "verify " + ref, operation: "verify", backup: ref,
	}, workflows.VerifyInput{Backup: ref, Quick: quick})
	if err != nil {
		return nil, err
	}
	var v workflows.VerifyResult
	if err := a.watch(ctx, c, r, &v); err != nil {
		return &outcome{Result: r}, err
	}
	o := &outcome{Result: v, Message: fmt.Sprintf("%s is whole: %s, %s read in %s", ref, ui.Plural(int(v.Pieces), "piece"), ui.Bytes(v.Bytes), ui.Took(v.Took))}
	if quick {
		o.Message = fmt.Sprintf("%s: the stored bytes of %s (%s) are as recorded, looked at in %s; what they hold was not decrypted", ref, ui.Plural(int(v.Pieces), "piece"), ui.Bytes(v.Bytes), ui.Took(v.Took))
		o.Next = []string{"cso_backupnrestore verify " + ref}
	}
	if len(v.Damaged) > 0 {
		o.Text = func() { a.marked("damaged", "", v.Damaged) }
		return o, problem.New(problem.Integrity, "take a new backup, it stores what is damaged anew; restore from another backup or copy",
			"%s is damaged: %s of %s", ref, strings.Join(v.Damaged[:min(3, len(v.Damaged))], ", "), ui.Plural(int(v.Pieces), "piece"))
	}
	return o, nil
}
