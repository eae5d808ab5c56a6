// Package coredump keeps the memory of the product's processes, which holds
// keys and passwords, off the disk.
package coredump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Forbid makes the kernel write no core file of this process, whatever limit
// and pattern the host has: the limit of its size becomes 0, and the process
// counts as not dumpable, which also holds for a pattern that pipes the core
// into a program (there the limit does not count, core(5)), and keeps other
// processes of the same user from reading its memory.
func Forbid() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
