package etcd

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	// mappedMost is how much may be read of a file before what was read is given back.
	mappedMost = 32 << 20
	// rowReach is what a row out of order maps beside itself: Linux maps up to 16 pages around one that is asked for.
	rowReach = 32 << 10
)

// mapped is the file of a snapshot as bbolt has it in memory. What was read of
// it counts as this process's own until the kernel needs the room, so that a
// large snapshot would make a large worker.
type mapped struct {
	start, size uintptr
	read        int
}

func mapOf(db *bolt.DB, size int64) mapped {
	return mapped{start: db.Info().Data, size: uintptr(size)}
}

// pass counts bytes that were read, and gives back what was read when it is much. Slices of the
// file stay valid: their pages come back from the page cache, or from the file, when they are used.
func (m *mapped) pass(n int) error {
	if m.read += n; m.read < mappedMost {
		return nil
	}
	m.read = 0
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.size, unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("give back the memory of the snapshot: %w", errno)
	}
	return nil
}
