// Package cli is the command line. The documented form
// (cso_backupnrestore -b OPERATION …) and the subcommands lead to the same
// functions; one file holds one command.
//
// The command starts and watches workflows, and reads the catalog itself. It
// carries no state: a run that was started goes on without it. Standard output
// holds the result; with -o json it is exactly one document, whatever happens.
package cli
