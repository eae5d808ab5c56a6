package elasticsearch

import (
	"context"
	"slices"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// finish remembers how everything must be found from now on, so that a later difference can be told apart from a failure.
func (c *claim) finish(ctx context.Context, b *content, d *delta, rep *plugins.Report) error {
	if err := c.s.refresh(ctx); err != nil {
		return err
	}
	live, err := c.s.state(ctx)
	if err != nil {
		return err
	}
	if b.mode == modeExport {
		if err := live.strip(); err != nil {
			return err
		}
	}
	was := c.note.Restored
	c.note.Restored, c.note.Seen = map[string]origin{}, map[string]seen{}
	for uuid, o := range was {
		for _, x := range live.Indices {
			if x.UUID == uuid {
				c.note.Restored[uuid] = o
			}
		}
	}
	restored := d.restore()
	for name, w := range b.indices {
		x := live.Indices[name]
		if x == nil {
			c.note.Seen[name] = seen{}
			continue
		}
		at := seen{Life: x.life(), Position: w.attrs[attrPosition], Right: string(x.Definition) == string(w.definition)}
		exact := b.mode == modeSnapshot && !w.unproved
		if !exact {
			at.Position = x.position()
		}
		c.note.Seen[name] = at
		if slices.Contains(restored, unitOf(b.streams, &state{}, name)) && (!exact || x.position() == at.Position) {
			c.note.Restored[x.UUID] = origin{Life: w.attrs[attrLife], Position: w.attrs[attrPosition], Pin: b.pin, At: x.position()}
		}
	}
	c.note.Wrong = nil
	for _, o := range differentObjectKeys(b.objects, c.note.prior(live.Objects)) {
		c.note.Wrong = append(c.note.Wrong, o)
		rep.Warnings = append(rep.Warnings, "not as in the backup: "+o)
	}
	// What an attempt before this one had lifted and this one had no reason to touch.
	if err := c.putBack(ctx); err != nil {
		return err
	}
	c.note.Finished = true
	return c.remember(ctx)
}

func differentObjectKeys(want, have map[string][]byte) []string {
	gone, write := splitObjects(have, want, append(slices.Clone(objectKinds), kindPersistent, kindTransient))
	return append(gone, write...)
}
