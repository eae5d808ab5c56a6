package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
)

// floor is the least that the format costs for files that do not shrink: a program that does nothing else reads them, takes SHA-256
// of them, encrypts them, takes SHA-256 of that, and writes it, on all cores; the same without reading and writing tells what
// of it are hashes and encryption. list is the command that prints the files' names, one a line.
func (b *bench) floor(ctx context.Context, env []string, list string) (written, memory contender) {
	as := func(name, dir string) contender {
		return contender{name: name, prepare: func() error {
			_, err := b.sh(ctx, env, "{ "+list+"\n} >$OUT/files; rm -rf $OUT/floor; mkdir $OUT/floor; sync -f $OUT/floor")
			return err
		}, run: func() (string, error) {
			return b.self(ctx, env, `"$SELF" -floor `+dir+` <$OUT/files; sync -f $OUT/floor`)
		}}
	}
	return as("read, hashed, encrypted, hashed again, written, synced: nothing else", "$OUT/floor"),
		as("hashed, encrypted, hashed again in memory: nothing else", "/dev/null")
}

// self runs a script in which $SELF is this program.
func (b *bench) self(ctx context.Context, env []string, script string) (string, error) {
	name, err := os.Executable()
	if err != nil {
		return "", err
	}
	return b.sh(ctx, append(env, "SELF="+name), script)
}

// piece is how files are cut; see docs/format.md.
const piece = 32 << 20

// burn does the work of floor in this process. With /dev/null for dir nothing is read or written.
func burn(dir string, names io.Reader) error {
	list, err := io.ReadAll(names)
	if err != nil {
		return err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	buffers := sync.Pool{New: func() any { return make([]byte, piece) }}
	g := errgroup.Group{}
	g.SetLimit(runtime.GOMAXPROCS(0))
	total, n := int64(0), 0
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		total += st.Size()
		for at := int64(0); at < st.Size(); at += piece {
			n++
			to := filepath.Join(dir, fmt.Sprint(n))
			g.Go(func() error {
				p := buffers.Get().([]byte)
				defer buffers.Put(p) //nolint:staticcheck // 24 bytes for each 32 MiB
				return burnPiece(p[:min(piece, st.Size()-at)], f, at, to, dir == os.DevNull, id.Recipient())
			})
		}
		defer f.Close()
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println(size(total))
	return nil
}

func burnPiece(p []byte, from io.ReaderAt, at int64, to string, memory bool, r age.Recipient) error {
	sum := sha256.New()
	var out io.Writer = sum
	if !memory {
		if _, err := from.ReadAt(p, at); err != nil {
			return err
		}
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		defer f.Close()
		out = io.MultiWriter(sum, f)
	}
	sha256.Sum256(p)
	w, err := age.Encrypt(out, r)
	if err != nil {
		return err
	}
	if _, err := w.Write(p); err != nil {
		return err
	}
	return w.Close()
}

// floorLimit says how fast the copy of incompressible bytes could be at best beside a peer.
func floorLimit(peer, written, memory figure) string {
	return fmt.Sprintf("a program that does nothing but read, hash, encrypt, hash again, write and sync takes %s, %.2f of the peer's speed; %s of it are hashes and encryption, on all cores.",
		written.wall.Round(10*time.Millisecond), times(peer, written.wall), memory.wall.Round(10*time.Millisecond))
}
