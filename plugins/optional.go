package plugins

import "context"

// Pinner is a session that can hold a point-in-time view while writers go on.
type Pinner interface {
	// Pin takes and holds the view. It blocks writers for no longer than a moment.
	Pin(ctx context.Context, run Run) (Pin, error)
}

// Pin is a held view. It lives in the process that took it and dies with it.
type Pin interface {
	Info() PinInfo
	// Backup writes all artifacts of the view; ErrPinLost when it is gone.
	Backup(ctx context.Context, run Run, w ArtifactWriter) (Report, error)
	// Release lets go of the view; safe to call twice.
	Release(ctx context.Context) error
}

// Planner is a session that can say what a restore would change, without changing anything.
type Planner interface {
	Plan(ctx context.Context, run Run, r ArtifactReader) (Plan, error)
}

// Plan is what a restore would do to one unit. The lists are bounded by the product when shown.
type Plan struct {
	Unchanged []string  `json:"unchanged,omitempty"`
	Change    []string  `json:"change,omitempty"`
	Add       []string  `json:"add,omitempty"`
	Remove    []string  `json:"remove,omitempty"`   // appeared later: lost by the restore
	Write     int64     `json:"write"`              // bytes of plaintext to write, roughly
	Space     int64     `json:"space"`              // bytes needed on the server while it runs
	Free      int64     `json:"free"`               // bytes free there; 0 when unknown
	Refusals  []string  `json:"refusals,omitempty"` // why the restore must not start
	Warnings  []string  `json:"warnings,omitempty"`
	Inexact   []Inexact `json:"inexact,omitempty"`
}

// AccountSwitcher is a session whose accounts (users, roles, grants) are
// restored apart from the data, last, in one step.
type AccountSwitcher interface {
	// AccountArtifact says whether an artifact of this name holds accounts; before RestoreAccounts has run
	// the proof of the data leaves it out.
	AccountArtifact(name string) bool
	// RestoreAccounts makes the accounts equal to the artifacts. The session's own account keeps
	// working until the session is closed.
	RestoreAccounts(ctx context.Context, run Run, r ArtifactReader) (Report, error)
}

// Reindexer is a session that can rebuild derived data. Run.Options["index"]
// holds names or patterns, comma separated, of what to rebuild; without it,
// everything. Killed at any moment, old or new data serves under every name,
// and the next call cleans up and finishes. The report counts what was rebuilt
// (Artifacts), what needed nothing (Unchanged), leftovers cleaned up (Removed)
// and documents (Records).
type Reindexer interface {
	Reindex(ctx context.Context, run Run) (Report, error)
}

// Fencer is a session whose database can itself refuse foreign writes. The
// refusal ends by itself, whatever dies, or Unfence ends it.
type Fencer interface {
	Fence(ctx context.Context, run Run) error
	Unfence(ctx context.Context, run Run) error
}

// Quieter is a session that can end, or wait for, what an earlier attempt of
// a lower epoch left running inside the server.
type Quieter interface {
	Quiet(ctx context.Context, run Run) error
}

// Bootstrapper is a plugin that can build an instance anew on empty or
// destroyed servers from a backup (disaster recovery). It runs on the VM of
// t.Member, once for each member, and is safe to repeat.
type Bootstrapper interface {
	Bootstrap(ctx context.Context, t Target, run Run, r ArtifactReader) (Report, error)
}

// Discoverer is a plugin that finds local servers and their standard credential files.
type Discoverer interface {
	Discover(ctx context.Context) ([]Target, error)
}

// Switch is a session that holds the product's maintenance switch.
type Switch interface {
	ReadSwitch(ctx context.Context) (SwitchState, error)
	WriteSwitch(ctx context.Context, s SwitchState) error
}

// SwitchState is the maintenance switch as stored: absent, or a value.
type SwitchState struct {
	Present bool   `json:"present"`
	Value   string `json:"value"`
}

// SwitchOn is the state that means maintenance (documented for CSO 4.0: `/lb/maintenance` = `true`).
var SwitchOn = SwitchState{Present: true, Value: "true"}

// On says whether the state means maintenance.
func (s SwitchState) On() bool { return s.Present && s.Value == "true" }

// InstanceReader is an ArtifactReader of one member's unit that can also give back the units of the
// other members of the same instance in the same backup. A member whose place in its cluster has
// changed since the backup needs them.
type InstanceReader interface {
	ArtifactReader
	// Members names the members that the backup has units of, sorted.
	Members(ctx context.Context) ([]string, error)
	// Member reads one of them; ErrNotFound for an unknown name.
	Member(ctx context.Context, name string) (ArtifactReader, error)
}
