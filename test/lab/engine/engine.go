// Package engine is what the lab asks of each kind of server: start for real,
// be filled, be wrecked, and be fingerprinted through its own client. It
// shares no code with the product's plugins, because it is the judge of them.
package engine

import (
	"context"
	"io"
)

// Member is one server process (or, for files, one directory tree) of the lab.
type Member struct {
	Component string            `json:"component"` // mariadb, etcd, zookeeper, secrets, certificates
	Instance  string            `json:"instance"`  // central, east, …
	Name      string            `json:"name"`      // mariadb-1, etcd-east-2, …
	Dir       string            `json:"dir"`       // everything this member owns lives below it
	Ports     map[string]int    `json:"ports"`     // by purpose: client, peer, election
	Options   map[string]string `json:"options"`   // passwords' file names, versions, switches
}

// Engine starts and judges one kind of server. All methods are idempotent.
// members are those of one instance, in order; they know each other.
type Engine interface {
	Component() string
	// Ports names the ports a member needs; the lab fills Member.Ports with free ones.
	Ports() []string
	// Install makes the programs available (Debian packages, Go builds), printing what takes long to w.
	Install(ctx context.Context, w io.Writer) error
	// Prepare makes data directories, passwords and certificates; it runs before Command and
	// may add to Member.Options (the lab stores the members afterwards).
	Prepare(ctx context.Context, members []Member) error
	// Command is the argument vector and extra environment of the server in the foreground;
	// empty when the component has no process.
	Command(m Member, members []Member) (argv, env []string, err error)
	// Ready answers nil once a real query with real credentials was answered.
	Ready(ctx context.Context, m Member) error
	// Secure runs once all members are ready: users, roles, authentication on.
	Secure(ctx context.Context, members []Member) error
	// Fill writes realistic data and every awkward value; equal seeds give equal content. size is small or large.
	Fill(ctx context.Context, members []Member, seed int64, size string) error
	// Wreck changes, deletes and adds at every level.
	Wreck(ctx context.Context, members []Member, seed int64) error
	// Fingerprint writes full content and definitions as sorted lines "kind<TAB>object<TAB>value or hash".
	// Lines of the kind "ephemeral" are shown, but do not count: they may lawfully come and go.
	Fingerprint(ctx context.Context, members []Member, w io.Writer) error
	// Env gives the member's LAB_<COMPONENT>_<n>_* lines as KEY=value; n counts from 1 over all instances.
	Env(m Member, n int) []string
	// Address and Options of the member in the product's estate file (secrets by *_file only).
	Target(m Member) (address string, options map[string]string)
}

// LedgerName is in the name of everything that the linked ledger makes, so
// that a judge can leave its lines out of a fingerprint.
const LedgerName = "linked_ledger"

// Ledger is an engine whose servers take part in the linked ledger: a writer
// stores the same transaction number in every database, and after a restore
// none may know one that another does not.
type Ledger interface {
	// OpenLedger connects to an instance and makes its page when it is missing.
	OpenLedger(ctx context.Context, members []Member) (Page, error)
}

// Page is an instance's part of the linked ledger. It outlives a restart of
// the server: a call that failed may be made again.
type Page interface {
	Record(ctx context.Context, n int64) error
	// Recorded is the last number; 0 on a fresh page.
	Recorded(ctx context.Context) (int64, error)
	Close() error
}

// Gate is a Page that also knows the estate's maintenance switch.
type Gate interface {
	Closed(ctx context.Context) (bool, error)
}
