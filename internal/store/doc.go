// Package store keeps backups in a directory: pieces as ordinary files, hard
// linked between backups that share them, encrypted, verified when read, and
// never rewritten. docs/format.md is the specification.
//
// The order of writes is the proof against crashes: pieces, then their
// directories, then unit.json, then manifest.json, each durable before the
// next begins. What has no manifest.json is not a backup.
//
// A [Store] bounds what all its writers and readers together hold in memory,
// whatever is stored and however many artifacts are open.
package store
