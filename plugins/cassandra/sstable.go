package cassandra

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// file is one component of an SSTable in a snapshot.
type file struct {
	table tableName
	name  string // nb-12-big-Data.db
	path  string
	size  int64
	stamp string // cheap identity: size, times and inode
}

func (f file) artifact() string { return "sstable/" + f.table.String() + "/" + f.name }

func (f file) data() bool { return strings.HasSuffix(f.name, "-Data.db") }

// generation is the name without its component: nb-12-big.
func generation(name string) string {
	if i := strings.LastIndex(name, "-"); i > 0 {
		return name[:i]
	}
	return name
}

// wanted says whether a file of a snapshot is part of an SSTable that an import takes: index
// components (SAI, SASI) are rebuilt by it, manifest.json and schema.cql describe the snapshot. TOC.txt
// lists the components for the server, which finds them without it, and 4.0 empties it when it starts
// after a death, the snapshot's link with it.
func wanted(name string) bool {
	i := strings.LastIndex(name, "-")
	if i <= 0 || strings.Count(name, "-") < 3 {
		return false
	}
	c := name[i+1:]
	switch c {
	case "Data.db", "Index.db", "Filter.db", "Summary.db", "Statistics.db", "CompressionInfo.db", "Digest.crc32", "CRC.db", "Partitions.db", "Rows.db":
		return !strings.Contains(name, "SAI")
	}
	return false
}

// dataDirs asks the server where its files are, unless the estate file says so.
func (s *session) dataDirs(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirs) > 0 {
		return s.dirs, nil
	}
	if s.dirs = s.cfg.dataDirs; len(s.dirs) > 0 {
		return s.dirs, nil
	}
	var v string
	if err := s.c.Query("SELECT value FROM system_views.settings WHERE name = 'data_file_directories'").WithContext(ctx).Scan(&v); err != nil {
		return nil, fmt.Errorf("%w; or name it in option data_dir of the estate file", s.cfg.wrap(ctx, "ask for the data directories", err))
	}
	for d := range strings.SplitSeq(strings.Trim(v, "[]"), ",") {
		if d = strings.TrimSpace(d); d != "" {
			s.dirs = append(s.dirs, d)
		}
	}
	if len(s.dirs) == 0 {
		return nil, fmt.Errorf("%s: the server names no data directory: %w: set option data_dir in the estate file", s.cfg.target, plugins.ErrConfig)
	}
	return s.dirs, nil
}

// tableDirs lists directories of tables of user keyspaces: DATA/KEYSPACE/TABLE-ID.
func (s *session) tableDirs(ctx context.Context, visit func(t tableName, id, dir string) error) error {
	dirs, err := s.dataDirs(ctx)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		spaces, err := os.ReadDir(d)
		if err != nil {
			return fmt.Errorf("%s: data directory: %w: the worker must be able to read it; check option data_dir", s.cfg.target, err)
		}
		for _, ks := range spaces {
			if !ks.IsDir() || system(ks.Name()) {
				continue
			}
			tables, err := os.ReadDir(filepath.Join(d, ks.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return fmt.Errorf("%s: data directory: %w", s.cfg.target, err)
			}
			for _, t := range tables {
				i := strings.LastIndex(t.Name(), "-")
				if !t.IsDir() || i <= 0 {
					continue
				}
				if err := visit(tableName{ks.Name(), t.Name()[:i]}, t.Name()[i+1:], filepath.Join(d, ks.Name(), t.Name())); err != nil {
					return err
				}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshotFiles lists the SSTable files of a snapshot, of the tables in the schema, by table and name.
func (s *session) snapshotFiles(ctx context.Context, tag string) (map[tableName][]file, error) {
	out := map[tableName][]file{}
	err := s.tableDirs(ctx, func(t tableName, _, dir string) error {
		dir = filepath.Join(dir, "snapshots", tag)
		list, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: snapshot %s: %w: the worker must be able to read it", s.cfg.target, tag, err)
		}
		for _, e := range list {
			if !e.Type().IsRegular() || !wanted(e.Name()) {
				continue
			}
			st, err := e.Info()
			if err != nil {
				return fmt.Errorf("%s: snapshot %s: %w", s.cfg.target, tag, err)
			}
			f := file{table: t, name: e.Name(), path: filepath.Join(dir, e.Name()), size: st.Size()}
			f.stamp = fmt.Sprintf("%d %d", st.Size(), st.ModTime().UnixNano())
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				f.stamp += fmt.Sprintf(" %d", sys.Ino) // the change time moves with each link
			}
			out[t] = append(out[t], f)
		}
		return nil
	})
	for _, l := range out {
		slices.SortFunc(l, func(a, b file) int { return strings.Compare(a.name, b.name) })
	}
	return out, err
}

// checksum reads a Digest.crc32: the CRC-32 of the whole Data.db beside it, in decimal digits. The server
// itself checks it only when it imports or scrubs.
func checksum(path string) (sum uint32, known bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b[:min(len(b), 32)])), 10, 32)
	if err != nil {
		return 0, false, fmt.Errorf("%s holds no checksum: %w", filepath.Base(path), plugins.ErrCorrupt)
	}
	return uint32(n), true, nil
}

// digestOf is the path of the checksum that belongs to a Data.db.
func digestOf(data string) string {
	return filepath.Join(filepath.Dir(data), generation(filepath.Base(data))+"-Digest.crc32")
}

// headerComponent is the number of the serialization header in Statistics.db (MetadataType.HEADER).
const headerComponent = 3

// maxHeader bounds what is read of a Statistics.db.
const maxHeader = 64 << 20

// header hashes the serialization header of an SSTable, from its Statistics.db. Data.db holds times as
// differences to the lowest ones, which stand in the header: equal data with another header is
// other data. The rest of Statistics.db changes with repairs and levels. Layout: a count and its checksum, number
// and offset of each component and a checksum, the components (MetadataSerializer, formats ma to oa and da).
func header(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHeader))
	if err != nil {
		return "", err
	}
	bad := fmt.Errorf("%s is not laid out as expected: %w", filepath.Base(path), plugins.ErrData)
	if len(b) < 8 {
		return "", bad
	}
	n, toc := int(binary.BigEndian.Uint32(b)), 8
	if strings.HasPrefix(filepath.Base(path), "m") { // formats of 3.x have no checksums
		toc = 4
	}
	if n < 1 || n > 16 || len(b) < toc+8*n {
		return "", bad
	}
	from, to := -1, len(b)
	var offsets []int
	for i := range n {
		kind, at := int(binary.BigEndian.Uint32(b[toc+8*i:])), int(binary.BigEndian.Uint32(b[toc+4+8*i:]))
		if at < toc || at > len(b) {
			return "", bad
		}
		offsets = append(offsets, at)
		if kind == headerComponent {
			from = at
		}
	}
	if from < 0 {
		return "", bad
	}
	for _, o := range offsets {
		if o > from && o < to {
			to = o
		}
	}
	sum := sha256.Sum256(b[from:to])
	return hex.EncodeToString(sum[:]), nil
}

// hashFile is the digest of a file as a File artifact would have it.
func hashFile(ctx context.Context, path string, seen func(int)) (plugins.Digest, error) {
	var d plugins.FileDigest
	f, err := os.Open(path)
	if err != nil {
		return plugins.Digest{}, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return plugins.Digest{}, err
		}
		n, err := f.Read(buf)
		d.Write(buf[:n])
		if seen != nil {
			seen(n)
		}
		if err == io.EOF {
			return d.Sum(), nil
		}
		if err != nil {
			return plugins.Digest{}, err
		}
	}
}

// fingerprint of an SSTable: what its Data.db holds, and the header it is read with.
func fingerprint(data plugins.Digest, header string) string { return data.String() + " " + header }
