// Package plugins is the contract between the product and each kind of
// database it protects. It imports the standard library only.
//
// A [Plugin] describes itself as data ([Info]) and opens a [Session] on a
// [Target]. What not every database can do stands in optional interfaces
// ([Pinner], [Planner], [AccountSwitcher], [Reindexer], [Fencer],
// [Bootstrapper], [Discoverer], [Switch]); the product asks for them by type
// assertion and never by name.
//
// Data flows as artifacts: one logical stream of a unit (a table, a key
// space, a file tree). A session writes artifacts into an [ArtifactWriter]
// and reads them back from an [ArtifactReader]; how they are cut, compressed,
// encrypted and stored is not the plugin's business. Every artifact carries a
// [Digest] of its records that does not depend on how it was stored, so
// that live data and stored data can be compared.
package plugins
