package e2e

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

const (
	killName   = "KILL"
	sampleSize = 12 // cases of a default run, and never fewer than there are blows
	killTries  = 6  // of a case whose blow missed its phase
	killSlice  = 4 * time.Millisecond
	sampleTime = 200 * time.Second // of a default run; what its restores have not proven then is proven by make test-kill
)

// killCase is a cell of the matrix.
type killCase struct {
	phase phase
	blow  blow
}

func (c killCase) String() string { return c.phase.op + "/" + c.phase.name + "/" + c.blow.name }

// matrix is the estate as the cases leave it to each other: a backup case
// makes a backup beside the ledger's writer, a restore case proves one.
type matrix struct {
	b        *bench
	lab      *shared
	rng      *rand.Rand
	now      print             // the estate
	wrecked  bool              // it differs from every backup
	taken    map[string]string // what a backup holds, the ledger apart
	unproven []string          // backups that no restore has judged yet
	best     string            // the newest that one has, or any
	complete map[string]bool   // backups that are known to be there
	wrecks   int64             // how often the estate was wrecked
}

// killLabs are the estates of the matrix: the first gets every blow, the others
// only the deaths of what the first does not have.
var killLabs = []*shared{two, trio, wide, rings}

// TestKill strikes every part of the product in every phase. By default a
// seeded sample runs; CSO_KILL=all runs what has no result for this commit
// yet, any other value is a regular expression over phase and blow that narrows
// this. Several processes may share the work: each has labs of its own, and
// leaves out what another has done meanwhile.
func TestKill(t *testing.T) {
	seed := time.Now().UnixNano()
	if s := os.Getenv("CSO_KILL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d: repeat with CSO_KILL_SEED=%[1]d", seed)
	which := os.Getenv("CSO_KILL")
	var table *killTable
	if which != "" {
		table = openKillTable(t)
	}
	for _, lab := range killLabs {
		m := &matrix{lab: lab, rng: rand.New(rand.NewPCG(uint64(seed), 7)), taken: map[string]string{}, complete: map[string]bool{}}
		var cases []killCase
		switch {
		case which != "":
			cases = m.chosen(t, which, table)
		case !lab.slow:
			cases = m.sample(m.all())
		}
		if len(cases) > 0 && !table.late() {
			m.fill(t)
			m.play(t, cases, table)
			if table != nil { // a long run leaves the machine to the next lab
				lab.down(t)
			}
		}
	}
	table.write(t)
}

// fill makes the lab ready: data, and a backup, so that a restore can come first.
func (m *matrix) fill(t *testing.T) {
	t.Helper()
	b := m.lab.bench(t)
	m.b = b
	b.check(b.Fill(t.Context(), 12, "small"))
	m.lasting()
	b.besideLedger(func() {})
	m.now = b.fingerprint()
	m.plain(t)
}

// play runs cases one after the other, and proves the backups that they left.
func (m *matrix) play(t *testing.T, cases []killCase, table *killTable) {
	t.Helper()
	start := time.Now()
	for _, c := range cases {
		if table.late() {
			break
		}
		if table.has(t, c) {
			continue
		}
		begun := time.Now()
		var out outcome
		ok := t.Run(c.String(), func(t *testing.T) {
			b := m.of(t).b
			logs := b.logSizes()
			defer func() {
				if t.Failed() {
					b.evidence(logs)
				}
			}()
			m.of(t).compact()
			out = m.run(c)
		})
		table.add(t, c, out, ok, time.Since(begun))
		if !ok {
			m.recover(t)
		}
	}
	t.Run("every backup that was left is whole", func(t *testing.T) {
		m := m.of(t)
		for len(m.unproven) > 0 && !table.late() && (table != nil || time.Since(start) < sampleTime) {
			m.prove(m.unproven[0])
		}
		t.Logf("%d backups were verified, not restored", len(m.unproven))
	})
}

// compact does what the etcd of a product does by itself every few minutes:
// the past revisions of hundreds of cases would be copied by each.
func (m *matrix) compact() {
	m.b.t.Helper()
	var now struct{ Header struct{ Revision int64 } }
	m.b.check(json.Unmarshal([]byte(m.b.etcdctl("get", "/lb/maintenance", "-w", "json")), &now))
	m.b.etcdctl("compact", "--physical", strconv.FormatInt(now.Header.Revision, 10))
	m.b.etcdctl("defrag", "--cluster")
}

// of is the same matrix in the hands of a subtest; what it learns is kept.
func (m *matrix) of(t *testing.T) *matrix { m.b = m.b.of(t); return m }

// all are the cells, phase by phase.
func (m *matrix) all() []killCase {
	var out []killCase
	for _, p := range phases {
		for _, x := range m.lab.blows() {
			if p.name == "rollback" && x.name == "cancel" {
				continue // it is being cancelled: a second one is refused, which TestDeaths shows
			}
			out = append(out, killCase{p, x})
		}
	}
	return out
}

// fleeting says that the phase is over in milliseconds when only one VM takes part: a sample is not to depend on hitting it.
func (m *matrix) fleeting(c killCase) bool { return m.lab != killLabs[0] && c.phase.name == "cleanup" }

// sample draws every blow at least once, backups and restores in turn.
func (m *matrix) sample(all []killCase) []killCase {
	size := sampleSize
	if m.lab != killLabs[0] {
		size = 0
	}
	m.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []killCase
	seen := map[string]bool{}
	for _, first := range []bool{true, false} {
		for len(out) < size || first {
			op := []string{"backup", "restore"}[len(out)%2]
			i := slices.IndexFunc(all, func(c killCase) bool { return c.phase.op == op && !m.fleeting(c) && (!first || !seen[c.blow.name]) })
			if i < 0 {
				break
			}
			seen[all[i].blow.name] = true
			out = append(out, all[i])
			all = slices.Delete(all, i, i+1)
		}
	}
	return out
}

// chosen are the cells that a regular expression names, or those without a result.
func (m *matrix) chosen(t *testing.T, which string, table *killTable) []killCase {
	re, err := regexp.Compile(which)
	if err != nil {
		t.Fatal(err)
	}
	all := slices.DeleteFunc(m.all(), func(c killCase) bool {
		return which != "all" && !re.MatchString(c.String()) || table.has(t, c)
	})
	m.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return inTurns(all)
}

// inTurns lets a few backups be followed by as many restores as prove them: a
// change from a wrecked estate to one that can be backed up costs a restore.
func inTurns(all []killCase) []killCase {
	var ops [2][]killCase
	for _, c := range all {
		i := 0
		if c.phase.op == "restore" {
			i = 1
		}
		ops[i] = append(ops[i], c)
	}
	var out []killCase
	const size = 16
	rounds := (len(all) + size - 1) / size
	for n := range rounds {
		for _, o := range ops {
			out = append(out, o[n*len(o)/rounds:(n+1)*len(o)/rounds]...)
		}
	}
	return out
}

// run repeats a case until its blow has hit the phase.
func (m *matrix) run(c killCase) outcome {
	m.b.t.Helper()
	for try := 1; ; try++ {
		out, err := m.attempt(c)
		if err == nil {
			out.tries = try
			return out
		}
		m.b.t.Logf("try %d: %v", try, err)
		if !errors.Is(err, errMissed) || try == killTries {
			m.b.t.Fatalf("%s: %v", c, err)
		}
	}
}

func (m *matrix) attempt(c killCase) (outcome, error) {
	if c.phase.op == "backup" {
		return m.backup(c)
	}
	return m.restore(c)
}

// plain takes a backup that nobody disturbs.
func (m *matrix) plain(t *testing.T) {
	m.of(t)
	var r workflows.Result
	m.b.besideLedger(func() { m.b.ask(fine, &r, "-b", "backup", "-s", killName, "-m", "yes") })
	m.b.settled()
	m.keep(r.Backup)
}

// keep enters a backup of the present estate, to be proven by a restore.
func (m *matrix) keep(ref string) {
	if m.complete[ref] {
		return
	}
	m.complete[ref], m.taken[ref] = true, m.now.withoutLedger()
	m.unproven = append(m.unproven, ref)
	if m.best == "" {
		m.best = ref
	}
}

// next is the backup that the next restore proves.
func (m *matrix) next() string {
	if len(m.unproven) > 0 {
		return m.unproven[0]
	}
	return m.best
}

// wreck makes the estate differ from the backups.
func (m *matrix) wreck() {
	if m.wrecked {
		return
	}
	m.wrecks++
	m.b.check(m.b.Wreck(m.b.t.Context(), 100+m.wrecks))
	m.zones()
	m.wrecked, m.now = true, m.b.fingerprint()
}

// prove restores a backup that nobody disturbs.
func (m *matrix) prove(ref string) {
	m.b.t.Helper()
	m.wreck()
	m.b.restored("-s", ref, "--confirm", killName)
	m.restoredTo(ref)
}

// restoredTo fails unless the estate is what the backup holds, and the ledger
// knows one transaction everywhere.
func (m *matrix) restoredTo(ref string) {
	m.b.t.Helper()
	got := m.b.fingerprint()
	if d := notAs(m.taken[ref], got.withoutLedger()); d != "" {
		m.b.t.Fatalf("after the restore the oracle finds a difference to the backup %s (-want +got):\n%s", ref, d)
	}
	n := m.b.ledgerNumber()
	m.b.t.Logf("restored to %s, transaction %d everywhere", ref, n)
	m.now, m.wrecked, m.best = got, false, ref
	m.unproven = slices.DeleteFunc(m.unproven, func(u string) bool { return u == ref })
}

// recover makes the estate usable for the next case after one that failed.
func (m *matrix) recover(t *testing.T) {
	b := m.of(t).b
	for _, member := range append([]string{engineOf, control, agent}, m.lab.servers()...) {
		if running, frozen, err := b.Running(member); err == nil && frozen {
			_ = b.Thaw(t.Context(), member)
		} else if err == nil && !running {
			_ = b.StartMember(t.Context(), member)
		}
	}
	b.cso("cancel")
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) {
		if _, open := b.look(); !open || time.Now().After(end) {
			break
		}
	}
	for range 60 {
		if s := b.journal(); !s.Open() || s.Hold != nil {
			break
		}
		time.Sleep(time.Second)
	}
	if b.journal().Hold != nil {
		b.want(append(fine, problem.Failed.Exit()), "resolve", "accept", "--confirm", killName)
	}
	b.etcdctl("put", "/lb/maintenance", b.prior)
	m.unproven = nil
	m.wrecked, m.now = true, b.fingerprint()
}
