// The vendor's driver tests, unmodified, from the module cache. Never tidy this
// module: it has no Go file, so "go mod tidy" would empty it.
module github.com/csobackup/cso_backupnrestore/test/arangosim/suite

go 1.25.0

require github.com/arangodb/go-driver/v2 v2.4.1 // indirect
