package elasticsearch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// Artifacts that hold the repository. Segments are named by what they hold, as a SHA-256: of the whole content, or of
// what identifies a large file (blob.identify). The same segment in the next backup, under whatever path, is the same artifact or record.
const (
	repositoryName = "repository" // path → 'c' and the content, or 'r' and the sum of a segment
	segmentsName   = "segments"   // sum → content of small segments
	segmentPrefix  = "segment/"   // and the hexadecimal sum: a large segment
	smallSegment   = 1 << 20
)

type blob struct {
	path  string
	size  int64
	sum   [sha256.Size]byte // of the content, or of what identifies it
	cheap bool              // sum is of head and tail: the content is read once, when it is stored
}

func (b blob) segment() bool { return strings.HasPrefix(filepath.Base(b.path), "__") }

// Lucene's and Elasticsearch's binary files begin with a magic number and end with another one, an algorithm
// (0) and the CRC-32 of all before it (org.apache.lucene.codecs.CodecUtil).
const (
	codecMagic  = 0x3fd76c17
	footerMagic = 0xc02893e8
	footerSize  = 16
	crcSize     = 8
	headSize    = 256
)

// list finds all files of the repository and says what each is. Small ones are read for it; of a large one head and
// tail are enough, where the server itself sees no more either when it decides whether a file is in a snapshot already:
// the head holds the random 128-bit id that Lucene gives every segment and the kind of file, the tail its checksum.
func (r *repository) list(ctx context.Context, parallel int, progress func(int64)) ([]blob, error) {
	var out []blob
	err := fs.WalkDir(r.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file: %w", p, plugins.ErrData)
		}
		out = append(out, blob{path: p, size: fi.Size()})
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("%s: repository: %w", r.s.target, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, parallel))
	var done atomic.Int64
	for i := range out {
		g.Go(func() error {
			if err := out[i].identify(gctx, r.root); err != nil {
				return fmt.Errorf("%s: %s: %w", r.s.target, out[i].path, err)
			}
			progress(done.Add(out[i].size))
			return nil
		})
	}
	return out, g.Wait()
}

// identify fills in the sum: of head and tail if the file is a large segment that Lucene has given both, else of the whole.
func (b *blob) identify(ctx context.Context, root *os.Root) error {
	f, err := root.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if b.segment() && b.size > smallSegment {
		edges := make([]byte, headSize+footerSize)
		if _, err := f.ReadAt(edges[:headSize], 0); err != nil {
			return err
		}
		if _, err := f.ReadAt(edges[headSize:], b.size-footerSize); err != nil {
			return err
		}
		if checked(b.path, edges) && binary.BigEndian.Uint32(edges[headSize:]) == footerMagic {
			b.cheap = true
			b.sum = sha256.Sum256(fmt.Appendf(edges, "lucene file of %d bytes", b.size))
			return nil
		}
	}
	sha := sha256.New()
	if err := b.read(ctx, f, func(p []byte) error { sha.Write(p); return nil }); err != nil {
		return err
	}
	b.sum = [sha256.Size]byte(sha.Sum(nil))
	return nil
}

// checked says whether a file that begins so ends in its own checksum; of a part of a file that was cut, none does.
func checked(path string, head []byte) bool {
	return len(head) >= 4 && binary.BigEndian.Uint32(head) == codecMagic && !strings.Contains(path, ".part")
}

// read reads the file once and proves its size and, if it has one, its own checksum.
func (b *blob) read(ctx context.Context, f io.Reader, each func([]byte) error) error {
	var crc uint32
	var n int64
	var tail []byte
	own := false
	buf := make([]byte, 256<<10)
	for {
		k, err := io.ReadFull(f, buf)
		p := buf[:k]
		if n == 0 {
			own = checked(b.path, p)
		}
		if own {
			covered := min(int64(k), max(0, b.size-crcSize-n)) // the last 8 bytes are the checksum itself
			crc = crc32.Update(crc, crc32.IEEETable, p[:covered])
			tail = append(tail, p[covered:]...)
		}
		n += int64(k)
		if k > 0 {
			if err := each(p); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if n > b.size {
			break
		}
	}
	if n != b.size {
		return fmt.Errorf("the file had %d bytes and has %d: %w: look at the disk that holds path.repo, then back up again", b.size, n, plugins.ErrCorrupt)
	}
	if own && (len(tail) != crcSize || uint64(crc) != binary.BigEndian.Uint64(tail)) {
		return fmt.Errorf("the file's own checksum does not match its content: %w: look at the disk that holds path.repo, then back up again", plugins.ErrCorrupt)
	}
	return nil
}

// save writes the repository's files as artifacts, those apart that early has stored.
func (r *repository) save(ctx context.Context, run plugins.Run, pin string, attrs map[string]string, w plugins.ArtifactWriter, e *early, rep *plugins.Report) error {
	phase := func(name string, total int64) func(int64) {
		return func(n int64) { run.Report(plugins.Status{Phase: name, Bytes: n, Total: total}) }
	}
	blobs, err := r.list(ctx, run.Parallel, phase("hash", 0))
	if err != nil {
		return err
	}
	var total int64
	for _, b := range blobs {
		total += b.size
	}
	progress := phase("copy", total)
	slices.SortFunc(blobs, func(a, b blob) int { return strings.Compare(a.path, b.path) })
	meta, err := w.Create(ctx, plugins.Artifact{Name: repositoryName, Form: plugins.Ordered, Pin: pin, Volatile: true, Attributes: attrs})
	if err != nil {
		return err
	}
	defer meta.Abort()
	bySum := map[[sha256.Size]byte]blob{}
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := append([]byte{'r'}, b.sum[:]...)
		if b.segment() {
			bySum[b.sum] = b
		} else if v, err = r.read(b, []byte{'c'}); err != nil {
			return err
		}
		if err := meta.Put([]byte(b.path), v); err != nil {
			return err
		}
	}
	if err := meta.Commit(); err != nil {
		return err
	}
	var small, large []blob
	for _, b := range bySum {
		if b.size <= smallSegment {
			small = append(small, b)
		} else {
			large = append(large, b)
		}
	}
	bySize := func(a, b blob) int { return bytes.Compare(a.sum[:], b.sum[:]) }
	slices.SortFunc(small, bySize)
	slices.SortFunc(large, bySize)
	var done atomic.Int64
	done.Store(e.done.Load())
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	g.Go(func() error { return r.saveSmall(gctx, pin, small, w, func(n int64) { progress(done.Add(n)) }) })
	for _, b := range large {
		if e.saved[b.sum] {
			continue
		}
		g.Go(func() error { return r.saveLarge(gctx, pin, b, w, func(n int64) { progress(done.Add(n)) }) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	rep.Artifacts += 2 + len(large)
	rep.Bytes += total
	return ctx.Err()
}

// read appends the content to prefix and proves that it is still what was hashed.
func (r *repository) read(b blob, prefix []byte) ([]byte, error) {
	v, err := r.root.ReadFile(b.path)
	if err != nil {
		return nil, fmt.Errorf("%s: repository: %w", r.s.target, err)
	}
	if sha256.Sum256(v) != b.sum {
		return nil, changedUnder(r.s, b)
	}
	return append(prefix, v...), nil
}

func changedUnder(s *session, b blob) error {
	return fmt.Errorf("%s: %s changed while it was copied: %w: look at the disk that holds path.repo, then back up again", s.target, b.path, plugins.ErrCorrupt)
}

func (r *repository) saveSmall(ctx context.Context, pin string, small []blob, w plugins.ArtifactWriter, progress func(int64)) error {
	rw, err := w.Create(ctx, plugins.Artifact{Name: segmentsName, Form: plugins.Ordered, Pin: pin, Volatile: true})
	if err != nil {
		return err
	}
	defer rw.Abort()
	for _, b := range small {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := r.read(b, nil)
		if err != nil {
			return err
		}
		if err := rw.Put(b.sum[:], v); err != nil {
			return err
		}
		progress(b.size)
	}
	return rw.Commit()
}

func (r *repository) saveLarge(ctx context.Context, pin string, b blob, w plugins.ArtifactWriter, progress func(int64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	id := hex.EncodeToString(b.sum[:])
	a := plugins.Artifact{Name: segmentPrefix + id, Form: plugins.File, Pin: pin, Identity: id, Volatile: true}
	if ok, err := w.Reuse(ctx, a); err != nil || ok {
		progress(b.size)
		return err
	}
	f, err := r.root.Open(b.path)
	if err != nil {
		return fmt.Errorf("%s: repository: %w", r.s.target, err)
	}
	defer f.Close()
	rw, err := w.Create(ctx, a)
	if err != nil {
		return err
	}
	defer rw.Abort()
	sha := sha256.New()
	err = b.read(ctx, f, func(p []byte) error {
		if !b.cheap {
			sha.Write(p)
		}
		if _, err := rw.Write(p); err != nil {
			return err
		}
		progress(int64(len(p)))
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", r.s.target, b.path, err)
	}
	if !b.cheap && [sha256.Size]byte(sha.Sum(nil)) != b.sum {
		return changedUnder(r.s, b)
	}
	return rw.Commit()
}

// load puts back the files for which want says yes, and the bytes it wrote.
func (r *repository) load(ctx context.Context, run plugins.Run, want func(path string) bool, in plugins.ArtifactReader) (int64, error) {
	need := map[[sha256.Size]byte][]string{}
	var written atomic.Int64
	put := func(path string, content io.Reader) error {
		n, err := r.write(path, content)
		run.Report(plugins.Status{Phase: "stage", Item: path, Bytes: written.Add(n)})
		return err
	}
	err := entries(ctx, in, repositoryName, func(k, v []byte) error {
		path := string(k)
		if !filepath.IsLocal(path) || len(v) == 0 {
			return fmt.Errorf("artifact %s: path %q: %w", repositoryName, path, plugins.ErrCorrupt)
		}
		if !want(path) {
			return nil
		}
		if v[0] == 'c' {
			return put(path, bytes.NewReader(v[1:]))
		}
		if len(v) != 1+sha256.Size {
			return fmt.Errorf("artifact %s: %q: %w", repositoryName, path, plugins.ErrCorrupt)
		}
		sum := [sha256.Size]byte(v[1:])
		need[sum] = append(need[sum], path)
		return nil
	})
	if err != nil {
		return 0, err
	}
	all := func(sum [sha256.Size]byte, content func() io.Reader) error {
		for _, path := range need[sum] {
			if err := put(path, content()); err != nil {
				return err
			}
		}
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, run.Parallel))
	found := map[[sha256.Size]byte]bool{}
	for _, a := range in.Artifacts() {
		h, ok := strings.CutPrefix(a.Name, segmentPrefix)
		b, err := hex.DecodeString(h)
		if !ok || err != nil || len(b) != sha256.Size || need[[sha256.Size]byte(b)] == nil {
			continue
		}
		sum := [sha256.Size]byte(b)
		found[sum] = true
		g.Go(func() error {
			for _, path := range need[sum] {
				rr, err := in.Open(gctx, a.Name)
				if err != nil {
					return err
				}
				err = put(path, readerOnly{rr})
				rr.Close()
				if err != nil {
					return err
				}
			}
			return gctx.Err()
		})
	}
	// The small ones: one pass over those pieces that hold any.
	if len(need) > len(found) {
		err = entries(ctx, in, segmentsName, func(k, v []byte) error {
			if len(k) != sha256.Size || need[[sha256.Size]byte(k)] == nil {
				return nil
			}
			found[[sha256.Size]byte(k)] = true
			return all([sha256.Size]byte(k), func() io.Reader { return bytes.NewReader(v) })
		})
	}
	if err = errors.Join(g.Wait(), err); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, err
	}
	for sum, paths := range need {
		if !found[sum] {
			return 0, fmt.Errorf("segment %x of %s is in no artifact: %w", sum, paths[0], plugins.ErrCorrupt)
		}
	}
	return written.Load(), nil
}

// readerOnly hides Next.
type readerOnly struct{ plugins.RecordReader }

// entries reads an artifact of records.
func entries(ctx context.Context, in plugins.ArtifactReader, name string, each func(k, v []byte) error) error {
	r, err := in.Open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		k, v, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(k, v); err != nil {
			return err
		}
	}
}

func (r *repository) write(path string, content io.Reader) (int64, error) {
	if err := r.mkdir(filepath.Dir(path)); err != nil {
		return 0, fmt.Errorf("%s: stage: %w", r.s.target, err)
	}
	f, err := r.root.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("%s: stage: %w", r.s.target, err)
	}
	defer f.Close()
	if err := r.owner(f); err != nil {
		return 0, fmt.Errorf("%s: stage: %w: run as root, or as the user of the nodes", r.s.target, err)
	}
	b := bufio.NewWriterSize(f, 256<<10)
	n, err := io.Copy(b, content)
	if err = errors.Join(err, b.Flush(), f.Close()); err != nil {
		return n, fmt.Errorf("%s: stage %s: %w", r.s.target, path, spaced(err))
	}
	return n, nil
}

// mkdir makes directories below the repository's, for the nodes' user.
func (r *repository) mkdir(dir string) error {
	if _, err := r.root.Stat(dir); err == nil {
		return nil
	}
	if err := r.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := r.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := r.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return r.owner(d)
}
