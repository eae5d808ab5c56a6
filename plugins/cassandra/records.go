package cassandra

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// record is one key and value of a small Ordered artifact.
type record struct{ key, value []byte }

// smallLimit bounds what a small artifact may hold when it is read back.
const smallLimit = 64 << 20

// writeRecords writes a small artifact; the rows are in order.
func writeRecords(ctx context.Context, w plugins.ArtifactWriter, a plugins.Artifact, rows []record) error {
	out, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer out.Abort()
	for _, r := range rows {
		if err := out.Put(r.key, r.value); err != nil {
			return err
		}
	}
	return out.Commit()
}

// readRecords reads a small artifact back.
func readRecords(ctx context.Context, r plugins.ArtifactReader, name string) (rows []record, err error) {
	in, err := r.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	size := 0
	for {
		k, v, err := in.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", name, err)
		}
		if size += len(k) + len(v) + 64; size > smallLimit {
			return nil, fmt.Errorf("artifact %q is larger than %d MiB: %w", name, smallLimit>>20, plugins.ErrData)
		}
		rows = append(rows, record{bytes.Clone(k), bytes.Clone(v)})
	}
}
