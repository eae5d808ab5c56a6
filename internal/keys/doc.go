// Package keys holds the three keys of a store and the files they live in.
//
// The identity (age, X25519) opens pieces; it stays on the installer-vm, and
// an operator keeps a copy elsewhere. The content key names pieces (HMAC) and
// is known to every VM that stores data. The manifest key seals manifests
// (HMAC) and stays on the installer-vm. Content key and manifest key travel in
// every manifest, encrypted to the recipients, so that a backup and the
// identity are enough to restore.
//
// The directory holds: identity (age identity file, mode 0600), recipients
// (one age recipient a line, # begins a comment), content.key and manifest.key
// (32 bytes each, mode 0600), confirmed (written when the operator has shown
// the copy of the identity).
package keys
