package plugins

import (
	"context"
	"log/slog"
	"time"
)

// Scope says how many units one instance makes.
type Scope string

const (
	ScopeCluster Scope = "cluster" // one unit, taken once for the whole cluster
	ScopeNode    Scope = "node"    // one unit on every member
)

// Info describes a plugin. It is pure data: no I/O, always the same answer.
type Info struct {
	Component string    // name in the component table
	Product   string    // "MariaDB Server"
	Versions  string    // supported server versions, for people: "10.6 to 11.8"
	Scope     Scope     // one unit per cluster or one per member
	Reindexes bool      // its sessions are Reindexers
	Inexact   []Inexact // what a restore cannot bring back exactly, always
}

// Inexact names something that a restore does not bring back exactly, and why.
type Inexact struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Plugin is one kind of database.
type Plugin interface {
	Info() Info
	// Open connects to the target and proves that it answers to the given credentials.
	// It is cheap to fail and never changes anything.
	Open(ctx context.Context, t Target) (Session, error)
}

// Member is one server (or host, for files) of an instance.
type Member struct {
	Name    string            `json:"name"`
	VM      string            `json:"vm"`
	Address string            `json:"address"`
	Options map[string]string `json:"options,omitempty"` // secrets only by reference, see Secret
}

// Target is one instance of a component, seen from one of its members.
type Target struct {
	Component string   `json:"component"`
	Instance  string   `json:"instance"`
	Member    string   `json:"member"` // the member this session is for; empty: any
	Members   []Member `json:"members"`
}

// Session is an open connection to a target. It is used by one activity
// attempt at a time and closed at its end; every method returns promptly when
// its context is cancelled and leaves no goroutine behind.
type Session interface {
	// Health looks at the whole instance and never changes it.
	Health(ctx context.Context) (Health, error)
	// PreHook and PostHook surround backup and restore (the CSO plug-in life cycle). PostHook undoes
	// what PreHook did and is safe to run twice, or without a PreHook.
	PreHook(ctx context.Context, run Run) error
	PostHook(ctx context.Context, run Run) error
	// Backup writes all artifacts. A session that is also a Pinner is copied through its Pin instead,
	// and its Backup is the same as pinning and copying at once.
	Backup(ctx context.Context, run Run, w ArtifactWriter) (Report, error)
	// Restore makes the live data equal to the artifacts, accounts apart when the session is an
	// AccountSwitcher. What appeared later is removed, what is equal is not touched. It may be killed at any
	// moment and run again, by another process, to the same end.
	Restore(ctx context.Context, run Run, r ArtifactReader) (Report, error)
	// Digest reads the live data and returns the digest each artifact would have, by artifact name.
	Digest(ctx context.Context, run Run) (map[string]Digest, error)
	// Compare reads the live data and says where it differs from the artifacts, accounts included; empty means equal.
	// What lapses with time compares equal when present or lawfully expired.
	Compare(ctx context.Context, run Run, r ArtifactReader) ([]Difference, error)
	Close() error
}

// Run is what one operation hands to a session.
type Run struct {
	Epoch     uint64            // number of the estate-changing run; publish steps are guarded with it
	Operation Operation         // why the session works
	Backup    string            // "NAME/TIMESTAMP" being written or read
	Attempt   string            // unique per activity attempt
	Options   map[string]string // "in-place": "yes", …
	Parallel  int               // how many streams at once, at least 1
	Scratch   string            // private directory on this VM, mode 0700, the same for every attempt of this unit and epoch
	Progress  Progress          // may be nil; use Report
	// Live, for Restore: the artifacts of what is about to be overwritten, stored a moment ago by the safety
	// backup, so that what differs is known without reading the servers again. nil when there is none, or
	// when something may have been written since. Compare proves the end in either case.
	Live ArtifactReader
	// AccountsOnly, for Compare: the data is proven, only accounts need to be read.
	AccountsOnly bool
	Log          *slog.Logger // never nil
}

// Operation is the reason for which a session is used.
type Operation string

const (
	OpBackup   Operation = "backup"
	OpSafety   Operation = "safety" // backup of what a restore is about to overwrite
	OpRestore  Operation = "restore"
	OpRollback Operation = "rollback" // restore of the safety backup
	OpDisaster Operation = "disaster" // restore onto freshly installed servers
	OpInspect  Operation = "inspect"  // health, plan, digest
	OpReindex  Operation = "reindex"  // derived data is rebuilt
)

// Progress receives the state of a running transfer. It is called often, from
// any goroutine, and returns at once.
type Progress func(Status)

// Status is a moment of a transfer: bytes of plaintext so far, of Total if known (0: unknown).
type Status struct {
	Phase string `json:"phase"` // "copy", "load", "digest", …
	Item  string `json:"item,omitempty"`
	Bytes int64  `json:"bytes"`
	Total int64  `json:"total,omitempty"`
}

// Report calls the progress function, if there is one.
func (r Run) Report(s Status) {
	if r.Progress != nil {
		r.Progress(s)
	}
}

// Report is the outcome of Backup or Restore.
type Report struct {
	ServerVersion string    `json:"serverVersion,omitempty"`
	Position      string    `json:"position,omitempty"` // revision, zxid, GTID, … of the data
	Consistency   string    `json:"consistency"`        // in words: "one snapshot of the whole server"
	Artifacts     int       `json:"artifacts"`          // written (backup) or changed (restore)
	Unchanged     int       `json:"unchanged"`          // restore: equal before, not touched
	Removed       int       `json:"removed"`            // restore: appeared later, removed
	Records       int64     `json:"records"`
	Bytes         int64     `json:"bytes"`
	Warnings      []string  `json:"warnings,omitempty"`
	Inexact       []Inexact `json:"inexact,omitempty"` // what of this very data is not exact
}

// Grade is the outcome of a health check.
type Grade string

const (
	Green Grade = "GREEN"
	Amber Grade = "AMBER" // works, but an operator should look
	Red   Grade = "RED"   // not safe to back up or restore
)

// Health is the state of an instance.
type Health struct {
	Grade    Grade    `json:"grade"`
	Reasons  []string `json:"reasons,omitempty"` // why it is not GREEN
	Version  string   `json:"version"`
	Members  int      `json:"members"`
	Estimate int64    `json:"estimate"` // bytes of plaintext a backup would read, roughly
	Empty    bool     `json:"empty"`    // holds no user data: nothing can be lost
}

// PinInfo identifies a held point-in-time view.
type PinInfo struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Position string    `json:"position,omitempty"`
}
