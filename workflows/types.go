package workflows

import (
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Unit is instance × scope: what one transfer activity works on.
type Unit struct {
	Component string `json:"component"`
	Instance  string `json:"instance"`
	Member    string `json:"member"` // member name, or "cluster"
	VM        string `json:"vm"`     // VM whose worker does the work
}

// ClusterMember is Unit.Member of a unit that is taken once for the cluster.
const ClusterMember = "cluster"

// String is "etcd", "etcd@east" or "secrets/vm1".
func (u Unit) String() string {
	s := plugins.Target{Component: u.Component, Instance: u.Instance}.String()
	if u.Member != ClusterMember {
		s += "/" + u.Member
	}
	return s
}

// BackupInput starts Backup and ScheduledBackup.
type BackupInput struct {
	Name           string        `json:"name"`
	Maintenance    bool          `json:"maintenance"`
	MaxMaintenance time.Duration `json:"maxMaintenance,omitempty"` // 0: the estate's setting
	Trigger        string        `json:"trigger"`                  // "cli" or "schedule"
}

// RestoreInput starts Restore and PlanRestore.
type RestoreInput struct {
	Backup     string   `json:"backup"`     // NAME/TIMESTAMP, resolved before the start
	Components []string `json:"components"` // empty: everything in the backup; else "mariadb", "mariadb@east", …
	Disaster   bool     `json:"disaster"`
	InPlace    bool     `json:"inPlace"`
	Confirm    string   `json:"confirm,omitempty"` // the backup's name, when given
}

// options are what the plugins are told of how to restore.
func (in RestoreInput) options() map[string]string {
	if !in.InPlace {
		return nil
	}
	return map[string]string{"in-place": "yes"}
}

// ReindexInput starts Reindex.
type ReindexInput struct {
	Components  []string `json:"components,omitempty"` // empty: all that can be reindexed
	Index       []string `json:"index,omitempty"`      // names or patterns; empty: every index
	Maintenance bool     `json:"maintenance,omitempty"`
}

// options are what the plugins are told of what to rebuild.
func (in ReindexInput) options() map[string]string {
	if len(in.Index) == 0 {
		return nil
	}
	return map[string]string{"index": strings.Join(in.Index, ",")}
}

// Resolve actions.
const (
	ResolveRetry    = "retry"
	ResolveRollback = "rollback"
	ResolveAccept   = "accept"
)

// ResolveInput starts Resolve, which ends a hold.
type ResolveInput struct {
	Action  string `json:"action"`
	Confirm string `json:"confirm"`
}

// VerifyInput starts Verify.
type VerifyInput struct {
	Backup string `json:"backup"`
	Quick  bool   `json:"quick"` // sizes and hashes of stored bytes only, no key
}

// HealthInput starts HealthCheck.
type HealthInput struct {
	Components []string `json:"components,omitempty"`
}

// UnitResult is what became of one unit.
type UnitResult struct {
	Unit      string        `json:"unit"`
	VM        string        `json:"vm"`
	Artifacts int           `json:"artifacts"` // backup: stored; restore: changed; reindex: rebuilt
	Unchanged int           `json:"unchanged,omitempty"`
	Removed   int           `json:"removed,omitempty"`
	Records   int64         `json:"records"`
	Bytes     int64         `json:"bytes"`  // plaintext
	Stored    int64         `json:"stored"` // bytes of all its pieces
	New       int64         `json:"new"`    // bytes of pieces stored by this run
	Took      time.Duration `json:"took"`
	Digest    string        `json:"digest,omitempty"` // backup: of all artifacts; restore: "equal"
	Warnings  []string      `json:"warnings,omitempty"`
	Inexact   []string      `json:"inexact,omitempty"`
}

// Result is the outcome of Backup, Restore, Resolve and Reindex. A failed run ends
// with an application error whose type is a problem code instead.
type Result struct {
	Operation   string        `json:"operation"`
	Backup      string        `json:"backup"`
	Safety      string        `json:"safety,omitempty"` // restore: where what was overwritten lies
	Epoch       uint64        `json:"epoch"`
	Units       []UnitResult  `json:"units"`
	Bytes       int64         `json:"bytes"`
	Stored      int64         `json:"stored"`
	New         int64         `json:"new"`
	Started     time.Time     `json:"started"`
	Took        time.Duration `json:"took"`
	Consistency string        `json:"consistency,omitempty"` // in words
	Consistent  bool          `json:"consistent"`            // backup: maintenance was held without a gap, or pins only were asked for
	Skew        time.Duration `json:"skew,omitempty"`        // between first and last pin
	Maintenance time.Duration `json:"maintenance,omitempty"` // time spent in it
	Drift       string        `json:"drift,omitempty"`       // partial restore: age of the backup and what that means
	Warnings    []string      `json:"warnings,omitempty"`
	Skipped     string        `json:"skipped,omitempty"` // scheduled run that did not start: "busy {operation, phase, age}"
}

// UnitPlan is what a restore would do to one unit; names are bounded samples.
type UnitPlan struct {
	Unit      string   `json:"unit"`
	VM        string   `json:"vm"`
	Unchanged int      `json:"unchanged"`
	Change    int      `json:"change"`
	Add       int      `json:"add"`
	Remove    int      `json:"remove"`
	Changes   []string `json:"changes,omitempty"` // at most 10 names, "+ name", "~ name", "- name"
	Write     int64    `json:"write"`
	Space     int64    `json:"space"`
	Free      int64    `json:"free"`
	Grade     string   `json:"grade"` // health of the target now
	Empty     bool     `json:"empty"`
}

// RestorePlan is the result of PlanRestore.
type RestorePlan struct {
	Backup   string        `json:"backup"`
	Taken    time.Time     `json:"taken"`
	Age      time.Duration `json:"age"`
	Units    []UnitPlan    `json:"units"`
	Refusals []string      `json:"refusals,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Inexact  []string      `json:"inexact,omitempty"`
	Drift    string        `json:"drift,omitempty"`
	Forever  bool          `json:"forever"` // something would be lost for good: --confirm is needed without a terminal
}

// UnitHealth is the health of one instance.
type UnitHealth struct {
	Unit    string   `json:"unit"`
	VM      string   `json:"vm"`
	Grade   string   `json:"grade"`
	Reasons []string `json:"reasons,omitempty"`
	Version string   `json:"version,omitempty"`
	Members int      `json:"members"`
	Bytes   int64    `json:"bytes,omitempty"` // what a backup would read, roughly
}

// VMHealth is the health of one VM's worker.
type VMHealth struct {
	VM      string        `json:"vm"`
	Grade   string        `json:"grade"`
	Reasons []string      `json:"reasons,omitempty"`
	Version string        `json:"version,omitempty"`
	Skew    time.Duration `json:"skew"`
	Free    int64         `json:"free"` // bytes free in the state directory's file system
}

// HealthResult is the result of HealthCheck.
type HealthResult struct {
	Grade string       `json:"grade"` // worst of all
	VMs   []VMHealth   `json:"vms"`
	Units []UnitHealth `json:"units"`
	Notes []VMNote     `json:"notes,omitempty"`
}

// VMNote is a finding about the product itself: keys, schedules, store, holds.
type VMNote struct {
	Grade  string `json:"grade"`
	Reason string `json:"reason"`
}

// VerifyResult is the result of Verify.
type VerifyResult struct {
	Backup  string        `json:"backup"`
	Pieces  int64         `json:"pieces"`
	Bytes   int64         `json:"bytes"`
	Took    time.Duration `json:"took"`
	Damaged []string      `json:"damaged,omitempty"` // bounded
}

// Progress is the answer to ProgressQuery. Live bytes come from the pending
// activities' heartbeat details; ActivityID says which.
type Progress struct {
	Operation   string         `json:"operation"`
	Backup      string         `json:"backup"`
	Epoch       uint64         `json:"epoch"`
	Phase       string         `json:"phase"`
	Since       time.Time      `json:"since"`       // start of the phase
	Started     time.Time      `json:"started"`     // start of the run
	Phases      []PhaseMark    `json:"phases"`      // all phases so far, in order
	Maintenance string         `json:"maintenance"` // "", "on", "left"
	Units       []UnitProgress `json:"units,omitempty"`
	Warnings    []string       `json:"warnings,omitempty"`
}

// PhaseMark is the begin of a phase.
type PhaseMark struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// UnitProgress is one line of the live screen.
type UnitProgress struct {
	Unit       string        `json:"unit"`
	VM         string        `json:"vm"`
	State      string        `json:"state"` // waiting, running, done, failed
	Phase      string        `json:"phase"` // pin, copy, restore, digest, …
	ActivityID string        `json:"activityId,omitempty"`
	Bytes      int64         `json:"bytes,omitempty"` // done: final
	Stored     int64         `json:"stored,omitempty"`
	Estimate   int64         `json:"estimate,omitempty"` // expected bytes
	Took       time.Duration `json:"took,omitempty"`
}

// Beat is the heartbeat detail of a transfer: at most 256 bytes, display only.
type Beat struct {
	Phase string    `json:"p"`
	Item  string    `json:"i,omitempty"` // cut to 64 bytes
	Bytes int64     `json:"b"`
	Total int64     `json:"t,omitempty"`
	At    time.Time `json:"a"`
}
