package zkfile

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"hash/adler32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins/zookeeper/zkwire"
)

var open = []zkwire.ACL{{Perms: 31, Scheme: "world", ID: "anyone"}}

// ReadSnapshot hands over the znodes of a snapshot, parents before children; the root's path is "/".
// It ends with an error wrapping ErrFormat when the file is not whole.
func ReadSnapshot(path string, each func(Node) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", path, ErrFormat, err)
		}
		defer z.Close()
		r = z
	}
	s := newStream(r)
	if err := readSnapshot(s, each); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

func readSnapshot(s *stream, each func(Node) error) error {
	if err := s.header(snapMagic); err != nil {
		return err
	}
	for n := s.int(); n > 0 && s.err == nil; n-- {
		s.long() // session
		s.int()  // its timeout
	}
	acls := map[int64][]zkwire.ACL{openACL: open}
	for n := s.int(); n > 0 && s.err == nil; n-- {
		id := s.long()
		acls[id] = s.acls()
	}
	for s.err == nil {
		n := Node{Path: s.string()}
		if n.Path == "/" {
			break
		}
		if n.Path == "" {
			n.Path = "/"
		}
		n.Data = s.bytes()
		id := s.long()
		n.Czxid, n.Mzxid, n.Ctime, n.Mtime = s.long(), s.long(), s.long(), s.long()
		n.Version, n.Cversion, n.Aversion = s.int(), s.int(), s.int()
		n.Owner, n.Pzxid = s.long(), s.long()
		if s.err != nil {
			break
		}
		list, ok := acls[id]
		if !ok {
			return fmt.Errorf("znode %q refers to access list %d, which is not there: %w", n.Path, id, ErrFormat)
		}
		n.ACL = list
		if err := each(n); err != nil {
			return err
		}
	}
	sum := int64(s.sum.Sum32())
	if want, end := s.long(), s.string(); s.err == nil && (want != sum || end != "/") {
		return fmt.Errorf("checksum does not match: %w", ErrFormat)
	}
	return s.err
}

// WriteSnapshot writes a snapshot of the given zxid into dir, synced, under
// the server's own name for it. nodes yields the znodes, parents before children, the root first.
func WriteSnapshot(dir string, zxid int64, nodes func(put func(Node) error) error, lists [][]zkwire.ACL) (err error) {
	tmp, err := os.CreateTemp(dir, ".snapshot-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // without effect once it has its name
	defer tmp.Close()
	w := bufio.NewWriterSize(tmp, 1<<20)
	sum := adler32.New()
	out := io.MultiWriter(w, sum)
	var e zkwire.Encoder
	e.Int(snapMagic)
	e.Int(version)
	e.Long(-1)
	e.Int(0) // sessions
	e.Int(int32(len(lists)))
	index := map[string]int64{}
	for i, l := range lists {
		e.Long(int64(i + 1))
		e.ACLs(l)
		index[fmt.Sprint(l)] = int64(i + 1)
	}
	if _, err := out.Write(e.B); err != nil {
		return err
	}
	err = nodes(func(n Node) error {
		e.B = e.B[:0]
		if n.Path == "/" {
			e.String("")
		} else {
			e.String(n.Path)
		}
		id, ok := index[fmt.Sprint(n.ACL)]
		if !ok {
			return fmt.Errorf("znode %q: its access list was not announced", n.Path)
		}
		e.Bytes(n.Data)
		e.Long(id)
		for _, v := range []int64{n.Czxid, n.Mzxid, n.Ctime, n.Mtime} {
			e.Long(v)
		}
		e.Int(n.Version)
		e.Int(n.Cversion)
		e.Int(n.Aversion)
		e.Long(n.Owner)
		e.Long(n.Pzxid)
		_, err := out.Write(e.B)
		return err
	})
	if err != nil {
		return err
	}
	e.B = e.B[:0]
	e.String("/")
	if _, err := out.Write(e.B); err != nil {
		return err
	}
	e.B = e.B[:0]
	e.Long(int64(sum.Sum32()))
	e.String("/")
	if _, err := w.Write(e.B); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, fmt.Sprintf("snapshot.%x", uint64(zxid))))
}
