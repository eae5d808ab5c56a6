package plugins

import "context"

// Form says how an artifact is cut into pieces.
type Form string

const (
	// Ordered: records in ascending byte order of unique keys. The same data gives the same pieces.
	Ordered Form = "ordered"
	// Unordered: records in arrival order; keys may be empty or repeat. Deduplication is not promised.
	Unordered Form = "unordered"
	// File: a stream of bytes, cut at fixed offsets of FileCut.
	File Form = "file"
)

// FileCut is the size of the pieces of a File artifact, in bytes.
const FileCut = 32 << 20

// Artifact describes one logical stream of a unit.
type Artifact struct {
	Name       string            `json:"name"` // unique in the unit; any UTF-8 without NUL, up to 1 KiB
	Form       Form              `json:"form"`
	Pin        string            `json:"pin"`                  // PinInfo.ID of the view it was read from
	Identity   string            `json:"identity,omitempty"`   // cheap proof that content is unchanged, for Reuse; empty: none
	Attributes map[string]string `json:"attributes,omitempty"` // small, not secret, not data; stored in clear
	Volatile   bool              `json:"volatile,omitempty"`   // not compared after a restore (reason in Inexact)
	Dense      bool              `json:"-"`                    // its bytes are compressed already: to compress them again is hardly worth the time
}

// ArtifactWriter takes the artifacts of one unit. Several artifacts may be
// open at once, each used by one goroutine.
type ArtifactWriter interface {
	Create(ctx context.Context, a Artifact) (RecordWriter, error)
	// Reuse stores the artifact by reference to the newest backup of this unit that holds the same
	// name with the same non-empty Identity, all pieces still there; false: there is none, write it.
	Reuse(ctx context.Context, a Artifact) (bool, error)
}

// Sharer is an ArtifactWriter that can store an artifact by what it is known to hold.
type Sharer interface {
	// Share stores the artifact by reference to a recent backup of this unit that holds one of the same
	// name and form with this digest, all pieces still there; false: there is none, write it.
	Share(ctx context.Context, a Artifact, d Digest) (bool, error)
}

// RecordWriter takes one artifact. Put serves Ordered and Unordered, Write
// serves File. The slices may be reused after the call. After an error the
// only valid call is Abort. An artifact counts only after Commit.
type RecordWriter interface {
	Put(key, value []byte) error
	Write(p []byte) (int, error)
	Commit() error
	Abort() // safe after Commit, then without effect
}

// PieceSharer is a RecordWriter that can store pieces of an Ordered artifact by what they are known to hold.
type PieceSharer interface {
	// SharePieces stores, as the next records, those of pieces from (included) to to (excluded) of a
	// recent backup of this unit that holds an artifact of the same name with this digest and these
	// pieces, all of the stretch still there; false: there is none, and nothing was stored.
	SharePieces(d Digest, pieces []PieceInfo, from, to int) (bool, error)
}

// ArtifactInfo is a stored artifact.
type ArtifactInfo struct {
	Artifact
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"` // plaintext of keys and values
	Digest  Digest `json:"digest"`
}

// PieceInfo is one stored piece of an Ordered artifact: the keys it spans
// (both included) and what it holds. Pieces follow each other in key order.
type PieceInfo struct {
	First, Last []byte
	Records     int64
	Bytes       int64
	Digest      Digest
}

// ArtifactReader gives back the artifacts of one unit, verified on the way:
// a damaged piece is an error wrapping ErrCorrupt, never wrong data.
type ArtifactReader interface {
	Artifacts() []ArtifactInfo // ascending by name
	// Open reads a whole artifact; ErrNotFound for an unknown name.
	Open(ctx context.Context, name string) (RecordReader, error)
	// Pieces lists the pieces of an Ordered artifact; OpenPieces reads those from index from (included)
	// to index to (excluded).
	Pieces(ctx context.Context, name string) ([]PieceInfo, error)
	OpenPieces(ctx context.Context, name string, from, to int) (RecordReader, error)
}

// RecordReader reads records (Next, io.EOF at the end; slices are valid until
// the next call) or, for File, bytes (Read).
type RecordReader interface {
	Next() (key, value []byte, err error)
	Read(p []byte) (int, error)
	Close() error
}
