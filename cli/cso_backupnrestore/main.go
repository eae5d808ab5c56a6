// Command cso_backupnrestore backs up and restores the databases, passwords
// and certificates of an estate. See package cli.
package main

import (
	"os"

	"github.com/csobackup/cso_backupnrestore/cli"
)

func main() { os.Exit(cli.Main()) }
