package plugintest

import (
	"encoding/gob"
	"io"
	"os"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// storedFile is how a Memory travels to the child process.
type storedFile struct {
	Info   plugins.ArtifactInfo
	Pieces []storedPiece
}

type storedPiece struct {
	Info plugins.PieceInfo
	Data []byte
	Want plugins.Digest
}

func (m *Memory) save(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := gob.NewEncoder(f)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.artifacts {
		sf := storedFile{Info: s.info}
		for _, p := range s.pieces {
			sf.Pieces = append(sf.Pieces, storedPiece{p.info, p.data, p.want})
		}
		if err := enc.Encode(sf); err != nil {
			return err
		}
	}
	return f.Close()
}

func load(file string) (*Memory, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := NewMemory()
	for dec := gob.NewDecoder(f); ; {
		var sf storedFile
		if err := dec.Decode(&sf); err == io.EOF {
			return m, nil
		} else if err != nil {
			return nil, err
		}
		s := &stored{info: sf.Info}
		for _, p := range sf.Pieces {
			s.pieces = append(s.pieces, piece{info: p.Info, data: p.Data, want: p.Want, size: len(p.Data)})
		}
		m.artifacts[s.info.Name] = s
	}
}
