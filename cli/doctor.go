package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/config"
	"github.com/csobackup/cso_backupnrestore/internal/dial"
	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/internal/schedule"
	"github.com/csobackup/cso_backupnrestore/internal/ui"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

func (a *app) doctorCommand(wire wireFunc) *cobra.Command {
	return wire(&cobra.Command{
		Use: "doctor", Short: "check this installation and say what to do", Args: exactly(0, ""),
		Long: `Check this installation: places, permissions, keys, certificates, Temporal, the
workers of all VMs, the estate file, free space, time zone. The databases
themselves are the business of healthcheck. The exit status is 0, 3 or 1.`,
		Example: "  cso_backupnrestore doctor",
	}, func(ctx context.Context, _ []string) (*outcome, error) { return a.doctor(ctx) })
}

// finding is one line of doctor.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Warn  bool   `json:"warn,omitempty"` // not as it should be, but it works
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"`
}

func (a *app) doctor(ctx context.Context) (*outcome, error) {
	found := []finding{
		a.checkDir("store", a.paths.Root, "make it, or mount the volume: mkdir -m 700 "+a.paths.Root),
		a.checkSpace("free space of the store", a.paths.Root, 1<<30),
		a.checkDir("state directory", a.paths.State, "systemctl start cso-temporald makes it"),
		a.checkSpace("free space of the state directory", a.paths.State, 256<<20),
	}
	found = append(found, a.checkKeys()...)
	found = append(found, a.checkCertificates()...)
	estate, f := a.checkEstate()
	found = append(found, f, a.checkZone(), a.checkSchedules())
	found = append(found, a.checkTemporal(ctx, estate)...)
	bad, warn := 0, 0
	for _, f := range found {
		switch {
		case !f.OK:
			bad++
		case f.Warn:
			warn++
		}
	}
	o := &outcome{Result: found, Message: fmt.Sprintf("%s, all well", ui.Plural(len(found), "check")), Text: func() { a.showFindings(found) }}
	switch {
	case bad > 0:
		o.Code, o.Message = problem.Failed, fmt.Sprintf("%s of %d failed", ui.Plural(bad, "check"), len(found))
	case warn > 0:
		o.Code, o.Message = problem.Warnings, fmt.Sprintf("%s of %d ask for attention", ui.Plural(warn, "check"), len(found))
	}
	return o, nil
}

func (a *app) showFindings(found []finding) {
	for _, f := range found {
		mark := a.out.Mark(f.OK)
		if f.OK && f.Warn {
			mark = a.out.Tone(ui.Warn, "!")
		}
		head := f.Check + ": "
		for i, l := range ui.Wrap(ui.Clean(head+f.Found), max(a.out.Width-3, 20)) {
			if i > 0 {
				mark = " "
			}
			a.out.Line("%s  %s", mark, l)
		}
		if f.Fix != "" {
			a.out.Paragraph("   fix: ", f.Fix)
		}
	}
}

func good(check, format string, args ...any) finding {
	return finding{Check: check, OK: true, Found: fmt.Sprintf(format, args...)}
}

func bad(check, fix, format string, args ...any) finding {
	return finding{Check: check, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func attention(check, fix, format string, args ...any) finding {
	return finding{Check: check, OK: true, Warn: true, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func (a *app) checkDir(check, dir, fix string) finding {
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		return bad(check, orHint(err, fix), "%v", err)
	case !st.IsDir():
		return bad(check, "move it away", "%s is not a directory", dir)
	case st.Mode().Perm()&0o077 != 0:
		return bad(check, "chmod 700 "+dir, "%s can be read or changed by others (mode %04o)", dir, st.Mode().Perm())
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return bad(check, orHint(err, "run this as root"), "%s: %v", dir, err)
	}
	return good(check, "%s", dir)
}

func (a *app) checkSpace(check, dir string, floor int64) finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return bad(check, "", "%s: %v", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	total := int64(st.Blocks) * st.Bsize
	if free < floor {
		return bad(check, "free space on it", "%s of %s", ui.Bytes(free), ui.Bytes(total))
	}
	return good(check, "%s of %s", ui.Bytes(free), ui.Bytes(total))
}

func (a *app) checkKeys() []finding {
	dir := a.paths.Keys()
	_, werr := keys.LoadWriter(dir)
	_, rerr := keys.LoadReader(dir)
	switch {
	case errors.Is(werr, fs.ErrNotExist) || errors.Is(rerr, fs.ErrNotExist):
		return []finding{attention("keys", "cso_backupnrestore setup", "none yet in %s; the first backup makes them", dir)}
	case errors.Is(werr, fs.ErrPermission) || errors.Is(rerr, fs.ErrPermission):
		return []finding{bad("keys", "run this as root", "%s cannot be read", dir)}
	case werr != nil:
		return []finding{bad("keys", "put the key files back from your copy; never make new ones over an old store", "%v", werr)}
	case rerr != nil:
		return []finding{bad("keys", "put back the identity from your copy into "+filepath.Join(dir, "identity"), "%v", rerr)}
	}
	out := []finding{good("keys", "%s", dir)}
	if f := a.checkPrivate("key files", dir); !f.OK {
		out = append(out, f)
	}
	if keys.Confirmed(dir) {
		return append(out, good("copy of the identity", "seen"))
	}
	return append(out, attention("copy of the identity", "keep a copy of "+filepath.Join(dir, "identity")+" on another machine, then show it: cso_backupnrestore setup --confirm-key COPY",
		"no copy was seen: without this file no backup can ever be restored"))
}

// checkPrivate finds files that others can read.
func (a *app) checkPrivate(check, dir string) finding {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return bad(check, "run this as root", "%v", err)
	}
	for _, e := range entries {
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() && i.Mode().Perm()&0o077 != 0 {
			p := filepath.Join(dir, e.Name())
			return bad(check, "chmod 600 "+p, "%s can be read by others (mode %04o)", p, i.Mode().Perm())
		}
	}
	return good(check, "%s", dir)
}

func (a *app) checkCertificates() []finding {
	dir := a.paths.PKI()
	path := filepath.Join(dir, dial.Operator+".crt")
	b, err := os.ReadFile(path)
	if err != nil {
		return []finding{bad("certificates", orHint(err, "systemctl start cso-temporald, or cso_backupnrestore setup"), "%v", err)}
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return []finding{bad("certificates", "move it away and run cso_backupnrestore setup", "%s holds no certificate", path)}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return []finding{bad("certificates", "move it away and run cso_backupnrestore setup", "%s: %v", path, err)}
	}
	out := []finding{good("certificates", "operator, until %s", cert.NotAfter.Format(time.DateOnly))}
	switch left := cert.NotAfter.Sub(a.now()); {
	case a.now().Before(cert.NotBefore):
		out[0] = bad("certificates", "set the clock of this machine", "not valid before %s: is the clock right?", cert.NotBefore.Format(time.DateTime))
	case left < 0:
		out[0] = bad("certificates", "cso_backupnrestore setup renews it", "expired on %s", cert.NotAfter.Format(time.DateOnly))
	case left < 30*24*time.Hour:
		out[0] = attention("certificates", "cso_backupnrestore setup renews it", "expires on %s", cert.NotAfter.Format(time.DateOnly))
	}
	if f := a.checkPrivate("certificate files", dir); !f.OK {
		out = append(out, f)
	}
	return out
}

func (a *app) checkEstate() (*config.Estate, finding) {
	e, err := config.Load(a.paths.Estate)
	switch {
	case errors.Is(err, config.ErrNoFile):
		return nil, good("estate file", "no estate file at %s: the worker uses what it finds on this host", a.paths.Estate)
	case err != nil:
		return nil, bad("estate file", orHint(err, "correct it"), "%s", oneLine(err.Error()))
	}
	return e, good("estate file", "%s: %s on %s", a.paths.Estate, ui.Plural(len(e.Instances), "instance"), ui.Plural(len(e.VMs), "VM"))
}

func (a *app) checkZone() finding {
	z, err := schedule.Zone(a.p.Getenv)
	if err != nil {
		return bad("time zone", "timedatectl set-timezone Area/City", "%v", err)
	}
	return good("time zone", "%s, now %s", z, a.now().In(z).Format("2006-01-02 15:04:05 MST"))
}

func (a *app) checkSchedules() finding {
	es, err := schedule.List(a.paths.Schedules())
	if err != nil {
		return bad("schedules", orHint(err, "correct or delete the file"), "%s", oneLine(err.Error()))
	}
	paused := 0
	for _, e := range es {
		if e.Paused {
			paused++
		}
	}
	if paused > 0 {
		return attention("schedules", "cso_backupnrestore schedule list", "%d, of which %d paused", len(es), paused)
	}
	return good("schedules", "%d", len(es))
}

func (a *app) checkTemporal(ctx context.Context, e *config.Estate) []finding {
	c, err := a.connect(ctx)
	if err != nil {
		p := problem.As(err)
		return []finding{bad("Temporal", p.Hint, "%s", p.Message)}
	}
	defer c.Close()
	out := []finding{good("Temporal", "answers")}
	wf, act := enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY
	queues := []struct {
		name string
		kind enumspb.TaskQueueType
		vm   string
	}{
		{workflows.ControlQueue, wf, a.paths.VM}, {workflows.ControlQueue, act, a.paths.VM}, {workflows.LeaseQueue, act, a.paths.VM},
	}
	vms := []config.VM{{Name: a.paths.VM}}
	if e != nil {
		vms = e.VMs
	}
	for _, v := range vms {
		queues = append(queues, struct {
			name string
			kind enumspb.TaskQueueType
			vm   string
		}{workflows.VMQueue(v.Name), act, v.Name}, struct {
			name string
			kind enumspb.TaskQueueType
			vm   string
		}{workflows.CtlQueue(v.Name), act, v.Name})
	}
	for _, q := range queues {
		out = append(out, a.checkQueue(ctx, c, q.name, q.kind, q.vm))
	}
	return out
}

func (a *app) checkQueue(ctx context.Context, c client.Client, queue string, kind enumspb.TaskQueueType, vm string) finding {
	check := "queue " + queue
	if kind == enumspb.TASK_QUEUE_TYPE_WORKFLOW {
		check += " (workflows)"
	}
	n, last, err := pollers(ctx, c, queue, kind)
	fix := "on " + vm + ": systemctl start cso-backup-worker; its log: journalctl -u cso-backup-worker"
	switch {
	case err != nil:
		return bad(check, "", "%v", cause(err))
	case n > 0:
		return good(check, "%s", ui.Plural(n, "worker"))
	case last.IsZero():
		return bad(check, fix, "no worker")
	}
	return bad(check, fix, "no worker since %s", strings.TrimSpace(last.Local().Format(time.DateTime)))
}
