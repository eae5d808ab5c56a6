package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// pipelineChapter backs up one large file: nothing but reading, hashing,
// compressing, encrypting and storing, beside restic on the same file.
func pipelineChapter(ctx context.Context, b *bench) error {
	e, err := b.start(ctx, "pipeline", "secrets")
	if err != nil {
		return err
	}
	defer e.stop()
	mib := 1024
	if b.small {
		mib = 64
	}
	file := filepath.Join(strings.Split(e.value("LAB_SECRETS_1_PATHS"), ",")[0], "stream")
	if err := writeStream(file, mib); err != nil {
		return err
	}
	watched, err := e.pids()
	if err != nil {
		return err
	}
	perCPU := func(f figure) string { return fmt.Sprintf("%.0f", float64(mib)/f.cpu.Seconds()) }
	var last workflows.Result
	env := []string{"RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + b.dir + "/cache", "FILE=" + file}
	all := []contender{e.backup(ctx, "B", &last), {name: "`restic backup`", prepare: func() error {
		_, err := b.sh(ctx, env, `rm -rf $OUT/restic; restic -q init --repo $OUT/restic`)
		return err
	}, run: func() (string, error) {
		return b.sh(ctx, env, `restic -q backup --repo $OUT/restic $FILE; sync -f $OUT/restic; du -sh $OUT/restic | cut -f1`)
	}}}
	f, err := b.race(ctx, watched, all...)
	if err != nil {
		return err
	}
	b.page.say("## Pipeline\n\n%s\nOne file of %d MiB: lines of text, about a fourth of it random digits. Both compress, hash, encrypt and sync.\n", b.stamp(), mib)
	var rows []string
	for _, c := range all {
		rows = append(rows, fmt.Sprintf("| %s | %.2f | %.2f | %s | %s |", c.name, f[c.name].wall.Seconds(), f[c.name].cpu.Seconds(), perCPU(f[c.name]), f[c.name].extra))
	}
	b.page.table("| command | wall s | CPU s | MiB of input per CPU second | |", rows...)
	return nil
}

// writeStream writes text that shrinks to about a third, equal at each run.
func writeStream(path string, mib int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 0, 1<<20)
	for range mib {
		buf = buf[:0]
		for len(buf) < 1<<20-200 {
			buf = fmt.Appendf(buf, "INSERT INTO `devices` VALUES (%d,'site-%04d','%016x','srx%d','ACTIVE',%d,NULL,'2026-01-01 00:00:00');\n", r.IntN(1e6), r.IntN(4000), r.Uint64(), r.IntN(4)*100, r.IntN(99))
		}
		if _, err := f.Write(append(buf, make([]byte, 1<<20-len(buf))...)); err != nil {
			return err
		}
	}
	return f.Close()
}
