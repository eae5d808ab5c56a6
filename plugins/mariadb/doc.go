// Package mariadb backs up and restores a MariaDB server: every schema and
// every kind of object in it, bit for bit, from one consistent point, and the
// accounts apart. The folder's README.md says how, which rights are needed and
// what does not come back exactly.
//
// Reading: a [plugins.Pin] holds aligned REPEATABLE READ snapshots (pin.go);
// definitions come from catalog.go, rows from rows.go as text-protocol cells,
// keys in byte order from keys.go. Writing: changed tables are loaded into
// shadow schemas (load.go), verified, and published by one RENAME (swap.go);
// what follows runs forward only (objects.go, views.go). claim.go keeps an
// attempt that was thought dead from writing.
package mariadb
