package mariadb

import (
	"context"
	"database/sql"
	"errors"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A safety backup of a table that is known to differ from the backup in some
// stretches reads these alone. The others are stored by reference to the
// pieces of the backup: plan has read the table and compared piece by piece,
// and nothing was written since.

// maxStitched bounds the pieces that are remembered of one table, some hundred bytes each.
const maxStitched = 1 << 16

// mostly says whether at least half of the table's bytes are the backup's.
func (k *knownTable) mostly() bool {
	if k.diff == nil || len(k.pieces) == 0 {
		return false
	}
	var all int64
	for _, p := range k.pieces {
		all += p.Bytes
	}
	return k.diff.bytes <= all/2
}

// stitch writes a table of which most is known to be the backup's; not done:
// it is to be written whole.
func (c *copier) stitch(ctx context.Context, conn *sql.Conn, t *tableInfo, name string) (done bool, err error) {
	k, ok := c.recall(t, name)
	if !ok || c.sums != nil || k.form != plugins.Ordered || !k.mostly() {
		return false, nil
	}
	w, err := c.w.Create(ctx, c.artifact(name, plugins.Ordered))
	if err != nil {
		return false, err
	}
	defer w.Abort()
	to, ok := w.(plugins.PieceSharer)
	if !ok {
		return false, nil
	}
	var have plugins.Digest
	var size int64
	at := 0
	share := func(until int) (bool, error) {
		if at >= until {
			return true, nil
		}
		for _, p := range k.pieces[at:until] {
			have.Merge(p.Digest)
			size += p.Bytes
		}
		ok, err := to.SharePieces(k.want, k.pieces, at, until)
		return ok, err
	}
	for _, sp := range k.diff.spans {
		if ok, err := share(sp.from); !ok || err != nil {
			return false, err
		}
		at = sp.to
		if sp.live.Records == 0 {
			continue
		}
		err := readRows(ctx, conn, t.planAs(qq(t.schema, t.name)+sp.where(), false), func(key, value []byte) error {
			have.Add(key, value)
			size += int64(len(key) + len(value))
			return w.Put(key, value)
		})
		if errors.Is(err, errOrder) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	if ok, err := share(len(k.pieces)); !ok || err != nil {
		return false, err
	}
	if have != k.digest {
		c.run.Log.Warn("a table is not what it was known to be, and is read whole", "table", t.schema+"."+t.name)
		return false, nil
	}
	if err := w.Commit(); err != nil {
		return false, err
	}
	c.progress(name, size)
	c.rows.Add(have.Records)
	c.artifacts.Add(1)
	return true, nil
}
