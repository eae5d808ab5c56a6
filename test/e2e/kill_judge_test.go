package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// outcome is how a case ended, in the words of the table.
type outcome struct {
	word  string
	tries int
}

// The words of the table.
const (
	finished = "finished"    // the operation resumed and did what it was asked
	ended1   = "ended"       // it ended in good order, nothing changed, and said so
	back     = "rolled back" // what was there before is back
	heldWord = "held"        // exit 15 and in maintenance, then resolved
	done     = "done"        // all was done and proven before the blow, only the word of it was lost
	anew     = "successor"   // it was ended from outside, the next one did the job
)

// epochRange is a run's epoch and when its fence was complete.
type epochRange struct {
	epoch uint64
	fence time.Time
}

const resumeWithin = 3 * time.Minute

// settleDown waits until the runs have ended and the journal is closed or held.
func (b *bench) settleDown() {
	b.t.Helper()
	b.eventually(resumeWithin, "the operation has ended by itself", func() bool { _, open := b.look(); return !open })
	b.eventually(90*time.Second, "the journal is closed, or the estate held", func() bool {
		s := b.journal()
		return !s.Open() || s.Hold != nil
	})
}

// told reads what a command printed at its end.
func (b *bench) told(e ended) (d document, r workflows.Result) {
	b.t.Helper()
	d = b.read(e, nil)
	if len(d.Result) > 0 && slices.Contains(fine, e.code) {
		b.read(e, &r)
	}
	return d, r
}

// strikeIn lets a command run into a phase and strikes it there.
func (m *matrix) strikeIn(c killCase, r *running, again []string) (k *strike, successor *running, err error) {
	b := m.b
	b.t.Helper()
	p := c.phase
	in, slice := p.in, killSlice
	if p.name == "rollback" {
		write := phases[slices.IndexFunc(phases, func(x phase) bool { return x.op == p.op && x.name == "write" })]
		v, w, err := b.approach(r, write, write.in, killSlice)
		if err != nil {
			return nil, nil, err
		}
		old := map[string]bool{}
		for _, s := range v.steps {
			old[s.id] = true
		}
		b.want([]int{0}, "cancel")
		w.thaw()
		in = func(v view) []step {
			if !v.asked {
				return nil
			}
			return slices.DeleteFunc(v.of(dbvm, "RestoreUnit", "SwitchAccounts", "CompareUnit"), func(s step) bool { return old[s.id] })
		}
	}
	if p.name == "write" || p.name == "copy" {
		slice = time.Duration(1+m.rng.IntN(40)) * time.Millisecond // early and late in what takes long
	}
	if p.name == "cleanup" { // takes a few milliseconds itself
		slice = killSlice / 4
	}
	v, held, err := b.approach(r, p, in, slice)
	if err != nil {
		return nil, nil, err
	}
	k = &strike{b: b, phase: p, view: v, held: held, cli: r, at: time.Now(), again: again, rng: m.rng}
	b.t.Logf("struck at %s while %v; journal: phase %s, written %v", k.at.Format("15:04:05.000"), in(v), v.journal.Phase, v.journal.Written)
	successor = c.blow.do(k)
	return k, successor, nil
}

// end waits for all commands of a case and gives their documents, in order.
func (k *strike) end(successor *running) (codes []int, results []workflows.Result) {
	b := k.b
	b.t.Helper()
	for _, r := range []*running{k.cli, successor} {
		if r == nil || r.killed {
			continue
		}
		e := r.wait()
		d, res := b.told(e)
		if d.Error != nil {
			b.t.Logf("%s: %s", d.Error.Code, d.Error.Message)
		}
		codes, results = append(codes, e.code), append(results, res)
	}
	b.settleDown()
	return codes, results
}

// missed lets a run that was not struck end by itself.
func (m *matrix) missed(r *running) {
	if !r.over() {
		r.wait()
	}
	m.b.settleDown()
}

// backup is a case of a backup: the writer of the linked ledger runs beside it.
// A wrecked estate, as a rolled back restore leaves it, is put right first: a
// backup of it is refused, because a protected path is missing.
func (m *matrix) backup(c killCase) (out outcome, err error) {
	b := m.b
	b.t.Helper()
	if ref := m.next(); m.wrecked && ref != "" {
		m.prove(ref)
	}
	logs := b.logSizes()
	args := []string{"-b", "backup", "-s", killName, "-m", "yes", "-o", "json"}
	var k *strike
	var codes []int
	var results []workflows.Result
	n := b.besideLedger(func() {
		r := b.start(args...)
		var successor *running
		if k, successor, err = m.strikeIn(c, r, args); err != nil {
			m.missed(r)
			return
		}
		codes, results = k.end(successor)
	})
	b.settled()
	if n.Last == n.First {
		b.t.Errorf("the ledger's writer did nothing: %+v", n)
	}
	now := b.fingerprint()
	if d := different(m.now.withoutLedger(), now.withoutLedger()); d != "" {
		b.t.Fatalf("a backup has changed the estate (-want +got):\n%s", d)
	}
	m.now = now
	if err == nil && !b.struck(k.view, k.phase.steps(k.view), k.at) {
		err = errMissed
	}
	m.inventory(results, codes)
	if err != nil {
		return out, err
	}
	b.noOldWrites(logs)
	good := len(codes) > 0 && slices.Contains(fine, codes[len(codes)-1])
	switch {
	case len(codes) > 0 && slices.Contains(fine, codes[0]):
		out.word = finished
	case good:
		out.word = anew
	default:
		out.word = ended1
	}
	return out, nil
}

// steps are those of the phase in a view; in a rollback all that write.
func (p phase) steps(v view) []step {
	if p.in == nil {
		return v.of(dbvm, "RestoreUnit", "SwitchAccounts", "CompareUnit")
	}
	return p.in(v)
}

// inventory checks what the store has gained: a backup that was reported is
// there and whole, one that was not is not complete, unless its run had
// already written the manifest, which is what makes a backup.
func (m *matrix) inventory(results []workflows.Result, codes []int) {
	b := m.b
	b.t.Helper()
	reported := map[string]bool{}
	for i, r := range results {
		if r.Backup == "" || r.Operation != "backup" || !slices.Contains(fine, codes[i]) {
			continue
		}
		reported[r.Backup] = true
		if !r.Consistent && (codes[i] != problem.Warnings.Exit() || !strings.Contains(strings.Join(r.Warnings, "\n")+r.Consistency, "consistency point")) {
			b.t.Errorf("a backup without a consistency point is not told loudly: exit %d, %+v", codes[i], r)
		}
	}
	var list []struct {
		Backup, Status string
		Consistent     bool
	}
	b.ask(fine, &list, "-b", "listbackups", "-s", killName)
	for _, e := range list {
		switch {
		case e.Status == "complete" && !m.complete[e.Backup]:
			b.want([]int{0}, "verify", e.Backup)
			if e.Consistent {
				m.keep(e.Backup)
			} else {
				m.complete[e.Backup] = true
			}
		case reported[e.Backup] && e.Status != "complete":
			b.t.Errorf("a backup that was reported is %s", e.Status)
		}
		delete(reported, e.Backup)
	}
	for ref := range reported {
		b.t.Errorf("the backup %s was reported and is not there", ref)
	}
}

// restore is a case of a restore of a wrecked estate.
func (m *matrix) restore(c killCase) (out outcome, err error) {
	b := m.b
	b.t.Helper()
	m.wreck()
	ref, before := m.next(), m.now
	logs := b.logSizes()
	args := []string{"-b", "restore", "-s", ref, "--confirm", killName, "-o", "json"}
	again := args
	if m.rng.IntN(2) == 0 {
		again = []string{"-b", "backup", "-s", "OTHER", "-m", "yes", "-o", "json"}
	}
	r := b.start(args...)
	k, successor, err := m.strikeIn(c, r, again)
	var codes []int
	if err != nil {
		m.missed(r)
	} else {
		codes, _ = k.end(successor)
	}
	restored := false
	switch {
	case err != nil: // not struck: it may have ended before, or well
		restored = notAs(m.taken[ref], b.fingerprint().withoutLedger()) == ""
	case len(codes) > 0 && slices.Contains(fine, codes[0]):
		restored, out.word = true, finished
	case successor != nil && again[1] == "restore" && slices.Contains(fine, codes[len(codes)-1]), b.restoredAnew(k):
		restored, out.word = true, anew
	case c.phase.written():
		restored, out.word = true, done
	default:
		out.word = back
		if !k.view.journal.Half() {
			out.word = ended1
		}
	}
	if err == nil && !b.struck(k.view, k.phase.steps(k.view), k.at) {
		err = errMissed
	}
	if s := b.journal(); s.Hold != nil {
		restored, out.word = m.resolve(codes), heldWord
	}
	b.settled()
	if restored {
		m.restoredTo(ref)
	} else {
		now := b.fingerprint()
		if d := notAs(before.text, now.text); d != "" {
			b.t.Fatalf("the restore did not succeed, and the estate is not as it was (-want +got):\n%s", d)
		}
		m.now = now
	}
	if err != nil {
		return out, err
	}
	b.noOldWrites(logs)
	if again[1] == "backup" && successor != nil {
		b.t.Logf("the backup that was started at once: exit %d", codes[len(codes)-1])
	}
	return out, nil
}

// restoredAnew says whether a run that was made by a reset has done the restore.
func (b *bench) restoredAnew(k *strike) bool {
	b.t.Helper()
	d, err := b.client.DescribeWorkflowExecution(b.t.Context(), workflows.ExclusiveID, "")
	b.check(err)
	i := d.WorkflowExecutionInfo
	return i.Execution.RunId != k.view.run && i.Type.Name == workflows.RestoreType && i.Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
}

// resolve ends a hold, after it was seen to be one. It says whether the backup
// is to be there afterwards.
func (m *matrix) resolve(codes []int) bool {
	b := m.b
	b.t.Helper()
	same(b.t, "maintenance of a held estate", "true", b.maintenance())
	var status struct{ Journal []string }
	b.ask([]int{problem.Held.Exit()}, &status, "status")
	action := workflows.ResolveRetry
	if m.rng.IntN(2) == 0 && b.journal().Safety != "" {
		action = workflows.ResolveRollback
	}
	b.t.Logf("held after exits %v: resolve %s", codes, action)
	b.want(fine, "resolve", action, "--confirm", killName)
	return action == workflows.ResolveRetry
}

var logged = regexp.MustCompile(`^time=(\S+) level=INFO msg="?(\w+)"? unit=(\S+) epoch=(\d+) `)

func (b *bench) logSizes() map[string]int64 {
	out := map[string]int64{}
	for _, w := range []string{control, agent} {
		if fi, err := os.Stat(b.path("log", w+".log")); err == nil {
			out[w] = fi.Size()
		}
	}
	return out
}

// evidence shows what a case that failed has left: the workers' logs since it
// began, the journal, and the steps of the last run.
func (b *bench) evidence(since map[string]int64) {
	for w, from := range since {
		text, err := os.ReadFile(b.path("log", w+".log"))
		if err != nil {
			b.t.Log(err)
			continue
		}
		lines := strings.Split(string(text[min(from, int64(len(text))):]), "\n")
		b.t.Logf("%s:\n%s", w, strings.Join(lines[max(0, len(lines)-150):], "\n"))
	}
	b.t.Logf("journal: %+v", b.journal())
	var out strings.Builder
	for _, e := range b.history("") {
		fmt.Fprintf(&out, "%d %s %s", e.EventId, e.EventTime.AsTime().Format("15:04:05.000"), strings.TrimPrefix(e.EventType.String(), "EVENT_TYPE_"))
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
			fmt.Fprintf(&out, " %s %s", a.ActivityId, a.ActivityType.GetName())
		}
		if f := e.GetActivityTaskFailedEventAttributes().GetFailure(); f != nil {
			fmt.Fprintf(&out, " of %d: %s", e.GetActivityTaskFailedEventAttributes().ScheduledEventId, f.Message)
		}
		out.WriteByte('\n')
	}
	b.t.Logf("last run:\n%s", out.String())
}

// noOldWrites reads in the workers' logs which transfers came to their end:
// none of an epoch may do so after a newer epoch's fence.
func (b *bench) noOldWrites(since map[string]int64) {
	b.t.Helper()
	fences := b.fences()
	for w, from := range since {
		text, err := os.ReadFile(filepath.Join(b.path("log"), w+".log"))
		b.check(err)
		for l := range strings.Lines(string(text[min(from, int64(len(text))):])) {
			f := logged.FindStringSubmatch(l)
			if f == nil {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, f[1])
			b.check(err)
			epoch, err := strconv.ParseUint(f[4], 10, 64)
			b.check(err)
			for _, r := range fences {
				if epoch < r.epoch && at.After(r.fence) {
					b.t.Errorf("epoch %d worked at %s, after the fence of epoch %d at %s: %s", epoch, at, r.epoch, r.fence, l)
				}
			}
		}
	}
}

// fences gives the fence of the last run.
func (b *bench) fences() []epochRange {
	b.t.Helper()
	s := b.journal()
	if s.Claim.Run == "" {
		return nil
	}
	at := fenced(b.history(s.Claim.Run))
	if at.IsZero() {
		return nil
	}
	return []epochRange{{s.Claim.Epoch, at}}
}
