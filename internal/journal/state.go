// Package journal is the truth about the running or half-done operation. It
// lives beside the backups, in <root>/.cso/journal, and is written with
// fsync under a lock before each step that changes the estate, so that
// whatever dies, the next process knows where things stand. Temporal is the
// engine; the journal is the record.
package journal

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Format is the version of the journal's file; a newer one is refused.
const Format = 1

// State is the journal's content.
type State struct {
	Format    int         `json:"format"`
	Claim     epoch.Claim `json:"claim"`
	Workflow  string      `json:"workflow"`  // workflow ID of the run
	Operation string      `json:"operation"` // backup, restore, disaster, resolve
	Backup    string      `json:"backup"`    // NAME/TIMESTAMP
	Opened    time.Time   `json:"opened"`    // for people; decisions use Boot
	Phase     string      `json:"phase"`
	Lease     *Lease      `json:"lease,omitempty"`
	Written   []string    `json:"written,omitempty"` // units a restore has begun to write and not yet proven
	Targets   []string    `json:"targets,omitempty"` // units the restore is for
	Safety    string      `json:"safety,omitempty"`  // where what was overwritten lies
	Hold      *Hold       `json:"hold,omitempty"`
	Closed    bool        `json:"closed"`
	Outcome   string      `json:"outcome,omitempty"`
}

// Lease is the record of maintenance mode. Prior is read only when no
// journal was open, so that the estate is afterwards as it was before the
// first of a chain of broken runs.
type Lease struct {
	Holder   string              `json:"holder"`   // activity attempt that holds it
	Prior    plugins.SwitchState `json:"prior"`    // the switch before
	Known    bool                `json:"known"`    // Prior was read
	Entered  bool                `json:"entered"`  // the switch may be on by us
	Verified bool                `json:"verified"` // it was read back as on
	Since    Boot                `json:"since"`
	Deadline Boot                `json:"deadline"` // zero: none (a restore holds until it is done)
	Asked    bool                `json:"asked"`    // the workflow asked to leave
	Gap      bool                `json:"gap"`      // it was lost or left before the workflow asked
}

// Hold is a run that failed beyond its own repair: the estate stays in
// maintenance until an operator resolves it.
type Hold struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Boot is a moment on this machine's boot clock, which no clock change moves.
type Boot struct {
	ID      string        `json:"id"`
	Elapsed time.Duration `json:"elapsed"`
}

// Now reads the boot clock.
func Now() Boot {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Boot{}
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		id = []byte(strconv.Itoa(os.Getppid()))
	}
	return Boot{ID: strings.TrimSpace(string(id)), Elapsed: time.Duration(ts.Nano())}
}

// Zero says whether the moment is unset.
func (b Boot) Zero() bool { return b == Boot{} }

// Add is the moment d later.
func (b Boot) Add(d time.Duration) Boot { return Boot{ID: b.ID, Elapsed: b.Elapsed + d} }

// Past says whether the moment has passed; any moment of an earlier boot has.
func (b Boot) Past(now Boot) bool { return !b.Zero() && (b.ID != now.ID || now.Elapsed >= b.Elapsed) }

// Half says whether the run has begun to write and not proven everything.
func (s State) Half() bool { return len(s.Written) > 0 }

// Open says whether the journal records a run that has not ended.
func (s State) Open() bool { return s.Claim.Epoch > 0 && !s.Closed }
