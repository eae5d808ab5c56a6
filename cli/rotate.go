package cli

import (
	"errors"
	"io/fs"

	"github.com/csobackup/cso_backupnrestore/internal/journal"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
)

// rotateView is the result of a change of identity or recipients.
type rotateView struct {
	Keys        string   `json:"keys"`
	Recipients  []string `json:"recipients"`
	Fingerprint string   `json:"fingerprint"`
	NewIdentity bool     `json:"newIdentity"`
}

// rotate changes who can open the backups made from now on. A running
// operation would be torn in two halves that different keys open.
func (a *app) rotate(o setupOptions) (*outcome, error) {
	if o.confirmKey != "" || o.estate != "" || len(o.vms)+len(o.instances) > 0 || o.holder != "" {
		return nil, usage("run setup once for the keys and once for the rest", "keys and other settings were given together")
	}
	j, err := journal.At(a.paths.Root)
	if err != nil {
		return nil, err
	}
	s, err := j.Read()
	if err != nil {
		return nil, err
	}
	if s.Open() {
		return nil, problem.New(problem.Busy, "wait until it has ended: cso_backupnrestore status", "%s %s is running: its backup would be torn between old and new keys", s.Operation, s.Backup)
	}
	w, err := keys.Rotate(a.paths.Keys(), o.keys)
	if err != nil {
		return nil, problem.New(problem.Key, rotateHint(err), "%w", err)
	}
	out := &outcome{
		Result:  rotateView{Keys: a.paths.Keys(), Recipients: w.Lines, Fingerprint: w.Fingerprint(), NewIdentity: o.keys.NewIdentity},
		Message: "backups from now on are for these recipients; the next one stores everything anew",
		Next:    []string{"cso_backupnrestore setup --confirm-key COPY", "cso_backupnrestore -b backup -s NAME"},
	}
	out.Text = func() {
		for _, l := range w.Lines {
			a.out.Line("recipient: %s", l)
		}
		if o.keys.NewIdentity {
			a.showIdentity()
		}
	}
	return out, nil
}

func rotateHint(err error) string {
	if errors.Is(err, keys.ErrIdentity) {
		return "put back your copy of the identity, or move the damaged file away"
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "make the first keys: cso_backupnrestore setup"
	}
	return "write recipients like age1…; `age-keygen` makes one elsewhere"
}
