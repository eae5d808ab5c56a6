package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
)

// floor is the least that the format costs for bytes that do not shrink: SHA-256
// of them, encryption, SHA-256 of what is stored; in memory, on all cores, with
// nothing read from a disk or written to one. How many they are is asked when it is run.
func floor(bytes func() int64) contender {
	return contender{name: "hashed, encrypted, hashed again in memory, nothing else", run: func() (string, error) {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		out, err := exec.Command(self, "-floor", strconv.FormatInt(bytes(), 10)).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		return size(bytes()), nil
	}}
}

// burn does the work of floor in this process, in pieces of 32 MiB as files are cut.
func burn(bytes int64) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	const piece = 32 << 20
	plain := make([]byte, piece)
	g := errgroup.Group{}
	g.SetLimit(runtime.GOMAXPROCS(0))
	for left := bytes; left > 0; left -= piece {
		g.Go(func() error {
			p := plain[:min(left, piece)]
			sha256.Sum256(p)
			w, err := age.Encrypt(sha256.New(), id.Recipient())
			if err != nil {
				return err
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			return w.Close()
		})
	}
	return g.Wait()
}

// floorLimit says how fast the copy of incompressible bytes could be at best beside a peer.
func floorLimit(peer, least figure) string {
	return fmt.Sprintf("every byte is hashed, encrypted and hashed again as it is stored, which alone takes all cores for %s, %.2f of the peer's speed at best; reading, writing and syncing come on top.",
		least.wall.Round(10*time.Millisecond), times(peer, least.wall))
}
