package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// file is one entry of a tree. Content counts for plain files, link for links.
type file struct {
	path    string // relative to the tree
	mode    uint32 // permission, set-id and sticky bits
	kind    uint32 // unix.S_IFREG, S_IFDIR or S_IFLNK
	content []byte
	link    string
	uid     int
	gid     int
	mtime   unix.Timespec
}

// Fill replaces the protected trees.
func (e *Engine) Fill(ctx context.Context, members []engine.Member, seed int64, size string) error {
	r := rand.New(rand.NewPCG(uint64(seed), 0xf11e))
	for _, m := range members {
		rs := roots(m)
		for _, root := range rs {
			if err := os.RemoveAll(root); err != nil {
				return fmt.Errorf("empty %s: %w", root, err)
			}
		}
		tree, err := e.tree(r, size)
		if err != nil {
			return err
		}
		if err := write(ctx, rs[0], tree); err != nil {
			return err
		}
		single := file{kind: unix.S_IFREG, mode: 0o440, content: []byte("a protected path may be a single file\n"), mtime: someTime(r)}
		if err := write(ctx, rs[1], []file{single}); err != nil {
			return err
		}
	}
	return nil
}

// tree is the content of a protected directory; equal seeds give equal trees.
func (e *Engine) tree(r *rand.Rand, size string) ([]file, error) {
	var fs []file
	if e.component == "certificates" {
		var err error
		if fs, err = certificates(r, size); err != nil {
			return nil, err
		}
	} else {
		fs = secrets(r, size)
	}
	fs = append(fs, awkward(r)...)
	// Half of the entries belong to somebody else, so that the owner counts.
	for i := range fs {
		fs[i].mtime = someTime(r)
		if r.IntN(2) == 0 {
			fs[i].uid, fs[i].gid = 1000+r.IntN(5), 1000+r.IntN(5)
		}
	}
	return append(fs, file{path: ".", kind: unix.S_IFDIR, mode: 0o750, mtime: someTime(r)}), nil
}

func plain(path string, mode uint32, content []byte) file {
	return file{path: path, kind: unix.S_IFREG, mode: mode, content: content}
}

func directory(path string, mode uint32) file {
	return file{path: path, kind: unix.S_IFDIR, mode: mode}
}

func link(path, to string) file { return file{path: path, kind: unix.S_IFLNK, link: to} }

func secrets(r *rand.Rand, size string) []file {
	count := 40
	if size == "large" {
		count = 5000
	}
	fs := []file{directory("encrypted_passwords", 0o700), plain("encrypted_passwords.yml", 0o600, password(r, 4000))}
	for i := range count {
		fs = append(fs, plain(fmt.Sprintf("encrypted_passwords/csp.%s-%05d.pw", []string{"mariadb", "iamsvc", "keystone", "rabbitmq"}[r.IntN(4)], i), 0o600, password(r, 8+r.IntN(120))))
	}
	return append(fs, link("current.yml", "encrypted_passwords.yml"))
}

func password(r *rand.Rand, n int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=$'\"\\ %"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return b
}

// awkward: what careless tools lose.
func awkward(r *rand.Rand) []file {
	binary := make([]byte, 300_000)
	for i := range binary {
		binary[i] = byte(r.Uint32())
	}
	deep := "deep"
	fs := []file{directory(deep, 0o755)}
	for i := range 20 {
		deep = filepath.Join(deep, fmt.Sprint("level", i))
		fs = append(fs, directory(deep, 0o755))
	}
	return append(fs,
		plain(deep+"/bottom", 0o644, []byte("bottom")),
		directory("empty directory", 0o700), directory("no permission", 0o000), directory("sticky", 0o1777), directory("setgid", 0o2770), directory("all bits", 0o7777),
		plain("sticky/inside", 0o644, []byte("x")), plain("setgid/inside", 0o2755, []byte("x")), plain("setuid", 0o4755, []byte("#!/bin/sh\n")),
		plain("no permission/inside", 0o600, []byte("x")),
		plain("empty", 0o600, nil), plain("unreadable", 0o000, []byte("secret")), plain("read-only", 0o444, []byte("r")),
		plain("binary", 0o600, binary), plain("large", 0o600, slices.Repeat(binary, 20)), plain("no newline", 0o600, []byte("no newline")), plain("crlf", 0o600, []byte("a\r\nb\r\n")),
		plain("with space ", 0o600, []byte("s")), plain("newline\nin name", 0o600, []byte("n")), plain("tab\tname", 0o600, []byte("t")), plain("-rf", 0o600, []byte("dash")),
		plain("quote'\"`$HOME;", 0o600, []byte("q")), plain("back\\slash", 0o600, []byte("b")), plain("*", 0o600, []byte("star")), plain("...", 0o600, []byte("dots")),
		plain(".hidden", 0o600, []byte("h")), plain("ünïcode-数据-🔑", 0o600, []byte("u")), plain("invalid-\xff\xfe-utf8", 0o600, []byte("i")), plain("comma,name", 0o600, []byte("c")),
		plain("Case", 0o600, []byte("upper")), plain("case", 0o600, []byte("lower")), plain("é", 0o600, []byte("composed")), plain("e\u0301", 0o600, []byte("decomposed")),
		plain(strings.Repeat("n", 250), 0o600, []byte("long name")),
		link("dangling", "nowhere/at all"), link("absolute", "/etc/hostname"), link("to directory", "deep/level0"), link("loop", "loop"), link("up", "../../outside"), link("link to link", "dangling"),
		link("invalid-target", "\xff\xfe"), link("deep/relative", "../empty"),
	)
}

// someTime is a moment with nanoseconds, sometimes before 1970 or far ahead.
func someTime(r *rand.Rand) unix.Timespec {
	sec := 1_500_000_000 + r.Int64N(200_000_000)
	switch r.IntN(20) {
	case 0:
		sec = -r.Int64N(1_000_000_000)
	case 1:
		sec = 4_000_000_000 + r.Int64N(1_000_000_000)
	}
	return unix.Timespec{Sec: sec, Nsec: r.Int64N(1_000_000_000)}
}

// write makes the entries, directories first, and sets modes and times in the
// end, the deepest first: making an entry changes its directory's time.
func write(ctx context.Context, root string, fs []file) error {
	for _, f := range fs {
		if f.kind == unix.S_IFDIR {
			if err := os.MkdirAll(filepath.Join(root, f.path), 0o700); err != nil {
				return fmt.Errorf("make a directory: %w", err)
			}
		}
	}
	for _, f := range fs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := filepath.Join(root, f.path)
		var err error
		switch f.kind {
		case unix.S_IFREG:
			err = os.WriteFile(p, f.content, 0o600)
		case unix.S_IFLNK:
			err = os.Symlink(f.link, p)
		}
		if err != nil {
			return fmt.Errorf("make an entry: %w", err)
		}
	}
	slices.SortStableFunc(fs, func(a, b file) int { return depth(b.path) - depth(a.path) })
	for _, f := range fs {
		if err := f.dress(root); err != nil {
			return err
		}
	}
	return nil
}

func depth(path string) int {
	if path == "." || path == "" {
		return -1
	}
	return strings.Count(path, "/")
}

// dress sets owner, mode and time, in this order: a new owner clears set-id bits.
func (f file) dress(root string) error {
	p := filepath.Join(root, f.path)
	err := unix.Lchown(p, f.uid, f.gid)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		err = nil // only root gives files away; without it everything stays ours
	}
	if err == nil && f.kind != unix.S_IFLNK {
		err = unix.Chmod(p, f.mode)
	}
	if err == nil {
		err = setTime(p, f.mtime)
	}
	if err != nil {
		return fmt.Errorf("dress %s: %w", p, err)
	}
	return nil
}

// setTime sets the modification time of the entry itself, links not followed.
func setTime(path string, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}
