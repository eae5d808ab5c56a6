package workflows

import (
	"time"

	"github.com/csobackup/cso_backupnrestore/internal/epoch"
	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Activity names are the names of the methods in package activities.

// PingResult is a VM's answer to Ping.
type PingResult struct {
	VM      string    `json:"vm"`
	Now     time.Time `json:"now"`
	Version string    `json:"version"`
	Free    int64     `json:"free"` // bytes free for scratch
}

// SurveyInput asks the control worker what there is.
type SurveyInput struct {
	Operation string    `json:"operation"`
	Name      string    `json:"name"` // of the new backup; empty for others
	Started   time.Time `json:"started"`
}

// Survey is the estate as the run sees it, and its times.
type Survey struct {
	Backup         string        `json:"backup"` // NAME/TIMESTAMP, fixed
	Units          []Unit        `json:"units"`
	Reindexable    []Unit        `json:"reindexable,omitempty"` // those whose derived data can be rebuilt
	VMs            []string      `json:"vms"`
	HasSwitch      bool          `json:"hasSwitch"`  // something stops the writers: a switch or a hook
	Attributes     bool          `json:"attributes"` // the search attributes exist on this Temporal
	Free           int64         `json:"free"`       // bytes free in the store
	MaxMaintenance time.Duration `json:"maxMaintenance"`
	Parallel       int           `json:"parallel"`
	Heartbeat      time.Duration `json:"heartbeat"`
	VMLostAfter    time.Duration `json:"vmLostAfter"`
	Warnings       []string      `json:"warnings,omitempty"`
}

// FenceInput claims the journal for the calling run.
type FenceInput struct {
	Operation string `json:"operation"`
	Backup    string `json:"backup"`
	Repairs   bool   `json:"repairs"`
}

// FenceResult is the claim, and what an adopted hold left behind.
type FenceResult struct {
	Claim   epoch.Claim `json:"claim"`
	Held    bool        `json:"held"`    // a hold was adopted
	Entered bool        `json:"entered"` // maintenance is on from a run before
	Written []string    `json:"written"` // units half written by the run before
	Safety  string      `json:"safety"`  // its safety backup
	Source  string      `json:"source"`  // what the claim is for: the backup that is restored
	Targets []string    `json:"targets"` // the units it was restoring
}

// UnitInput is what every activity on a unit gets.
type UnitInput struct {
	Claim     epoch.Claim       `json:"claim"`
	Unit      Unit              `json:"unit"`
	Member    string            `json:"member,omitempty"` // Bootstrap: the member to build anew
	Operation plugins.Operation `json:"operation"`
	Backup    string            `json:"backup"` // written (backup) or read (restore)
	Options   map[string]string `json:"options,omitempty"`
	Parallel  int               `json:"parallel"`
	Heartbeat time.Duration     `json:"heartbeat"`
	Pinned    string            `json:"pinned,omitempty"`   // id of the pin to copy from
	Post      bool              `json:"post,omitempty"`     // Hook: PostHook instead of PreHook
	DataOnly  bool              `json:"dataOnly,omitempty"` // CompareUnit: accounts are not switched yet
	Proven    bool              `json:"proven,omitempty"`   // CompareUnit: the data is proven, accounts are not
	Safety    string            `json:"safety,omitempty"`   // RestoreUnit: this run's safety backup of what is overwritten; nothing was written since
}

// PinResult describes a pin; an empty ID means that the unit cannot be pinned.
type PinResult struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Position string    `json:"position,omitempty"`
}

// CompareResult is the proof of a restored unit: empty Differences mean equal.
type CompareResult struct {
	Equal       bool     `json:"equal"`
	Foreign     bool     `json:"foreign"` // all differences are somebody else's later writes
	Differences []string `json:"differences,omitempty"`
}

// EnterInput turns maintenance on.
type EnterInput struct {
	Claim    epoch.Claim   `json:"claim"`
	Max      time.Duration `json:"max"`
	Tolerant bool          `json:"tolerant"`
}

// EnterResult says how it went.
type EnterResult struct {
	Warning string `json:"warning,omitempty"`
}

// LeaveResult tells how maintenance was left.
type LeaveResult struct {
	Was  bool          `json:"was"`
	Held time.Duration `json:"held"`
	Gap  bool          `json:"gap"`
}

// HoldInput keeps the maintenance lease.
type HoldInput struct {
	Claim     epoch.Claim   `json:"claim"`
	Heartbeat time.Duration `json:"heartbeat"`
}

// WatchInput asks to be told when a VM's worker has been silent for too long.
type WatchInput struct {
	Claim     epoch.Claim   `json:"claim"`
	VMs       []string      `json:"vms"`
	LostAfter time.Duration `json:"lostAfter"`
	Heartbeat time.Duration `json:"heartbeat"`
}

// MarkInput writes a phase, units begun or units proven into the journal.
type MarkInput struct {
	Claim   epoch.Claim `json:"claim"`
	Phase   string      `json:"phase,omitempty"`
	Begin   []string    `json:"begin,omitempty"`
	Proven  []string    `json:"proven,omitempty"`
	Targets []string    `json:"targets,omitempty"`
	Safety  string      `json:"safety,omitempty"`
}

// SealInput commits a backup.
type SealInput struct {
	Claim       epoch.Claim   `json:"claim"`
	Backup      string        `json:"backup"`
	Operation   string        `json:"operation"` // backup or safety
	Trigger     string        `json:"trigger"`
	Started     time.Time     `json:"started"`
	Pinned      time.Time     `json:"pinned"`
	Units       []SealUnit    `json:"units"`
	Asked       bool          `json:"asked"` // maintenance was asked for
	Consistent  bool          `json:"consistent"`
	Consistency string        `json:"consistency"`
	Skew        time.Duration `json:"skew"`
	Maintenance time.Duration `json:"maintenance"`
	Warnings    []string      `json:"warnings,omitempty"`
}

// SealUnit is what the workflow knows of a unit beyond its unit.json.
type SealUnit struct {
	Unit   Unit      `json:"unit"`
	Early  bool      `json:"early"` // copied before maintenance ended, for lack of a pin
	Pinned PinResult `json:"pinned"`
}

// SealResult is the size of the sealed backup.
type SealResult struct {
	Bytes  int64 `json:"bytes"`
	Stored int64 `json:"stored"`
	New    int64 `json:"new"`
}

// VerifyStoredInput re-reads a backup before it is sealed or restored.
type VerifyStoredInput struct {
	Backup    string        `json:"backup"`
	NewOnly   bool          `json:"newOnly"` // decode what this run stored, check existence of the rest
	Quick     bool          `json:"quick"`
	Units     []Unit        `json:"units,omitempty"` // only these; empty: all
	Heartbeat time.Duration `json:"heartbeat"`
}

// OpenInput opens a backup for a restore.
type OpenInput struct {
	Backup     string    `json:"backup"`
	Components []string  `json:"components,omitempty"`
	Now        time.Time `json:"now"`
}

// OpenResult is the part of a backup that a restore is about.
type OpenResult struct {
	Backup   string    `json:"backup"`
	Taken    time.Time `json:"taken"`
	Units    []Unit    `json:"units"`
	Members  []Unit    `json:"members"` // of the instances of cluster units, each on its VM
	Partial  bool      `json:"partial"`
	Drift    string    `json:"drift,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Inexact  []string  `json:"inexact,omitempty"`
}

// CleanupInput removes what a run left behind on the control host.
type CleanupInput struct {
	Claim   epoch.Claim `json:"claim"`
	Backup  string      `json:"backup"`  // incomplete backup to remove; empty: none
	Outcome string      `json:"outcome"` // closes the journal with this; empty: leave it open
	Hold    string      `json:"hold"`    // holds the estate with this reason
}

// UnitPlanResult is a unit's plan with what it has to say; lists are bounded.
type UnitPlanResult struct {
	Plan     UnitPlan `json:"plan"`
	Refusals []string `json:"refusals,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Inexact  []string `json:"inexact,omitempty"`
}
