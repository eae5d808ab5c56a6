package store

import (
	"errors"
	"fmt"

	"github.com/csobackup/cso_backupnrestore/internal/manifest"
)

// Kinds of packs: small artifacts, and indexes of artifacts. They are kept
// apart so that opening a unit reads indexes only.
const (
	packData = iota
	packIndex
)

// pack is a piece that holds many small parts.
type pack struct {
	b     *build
	piece int // once stored
}

type packedPart struct {
	pack   *pack
	offset int64
}

var errGone = errors.New("stored piece is gone")

// pack puts data into a pack, or refers to where the same data lies already:
// in this backup, or in a pack of an earlier one that is still well used. The
// returned pack is nil when the part's piece is known.
func (u *UnitWriter) pack(kind int, data []byte, p manifest.Part) (*pack, manifest.Part, error) {
	mac := u.pieceMAC()
	mac.Write(data)
	id := manifest.Hash(mac.Sum(nil))
	p.ID = &id
	u.packMu.Lock()
	if at, ok := u.packed[id]; ok {
		u.packMu.Unlock()
		p.Offset = at.offset
		return at.pack, p, nil
	}
	u.packMu.Unlock()
	if at, ok := u.past.small[id]; ok && at.length == p.Length {
		i, err := u.claimPast(at.piece)
		if err == nil {
			p.Piece, p.Offset = i, at.offset
			return nil, p, nil
		}
		if !errors.Is(err, errGone) {
			return nil, p, err
		}
	}
	u.packMu.Lock()
	k := u.packs[kind]
	if k == nil {
		k = &pack{b: u.newBuild()}
		u.packs[kind] = k
	}
	p.Offset = k.b.size
	if err := k.b.add(data); err != nil {
		u.packMu.Unlock()
		return nil, p, u.giveUp(err)
	}
	u.packed[id] = packedPart{pack: k, offset: p.Offset}
	full := k.b.size >= packSize
	if full {
		u.packs[kind] = nil
	}
	u.packMu.Unlock()
	if full {
		return k, p, u.storePack(k)
	}
	return k, p, nil
}

func (u *UnitWriter) storePack(k *pack) (err error) {
	if k.piece, err = k.b.store(); err != nil {
		return u.giveUp(fmt.Errorf("pack: %w", err))
	}
	return nil
}

// flushPacks stores what is left in the packs.
func (u *UnitWriter) flushPacks() error {
	u.packMu.Lock()
	defer u.packMu.Unlock()
	for i, k := range u.packs {
		if k == nil {
			continue
		}
		u.packs[i] = nil
		if err := u.storePack(k); err != nil {
			return err
		}
	}
	return nil
}

func (u *UnitWriter) dropPacks() {
	u.packMu.Lock()
	defer u.packMu.Unlock()
	for i, k := range u.packs {
		if k != nil {
			k.b.discard()
			u.packs[i] = nil
		}
	}
}

// giveUp makes the unit impossible to finish: data of a committed artifact is lost.
func (u *UnitWriter) giveUp(err error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failed = errors.Join(u.failed, err)
	return err
}
