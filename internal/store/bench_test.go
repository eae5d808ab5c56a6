package store

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

func cpuSeconds() float64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

// rows are records of about 300 bytes, such as a table of users gives.
func rows(n int) [][2][]byte {
	out := make([][2][]byte, n)
	text := noise(9, 1<<20)
	for i := range out {
		k := fmt.Appendf(nil, "%012d", i)
		v := fmt.Appendf(nil, "\x07%s\x00user-%d@example.net\x00active\x00%x\x00The quick brown fox jumps over the lazy dog %d times and then sleeps in the shadow of tree %d\x00%x",
			k, i*7919%1_000_003, text[i%1000*16:i%1000*16+48], i%97, i%1013, text[i*37%1_000_000:i*37%1_000_000+24])
		out[i] = [2][]byte{k, v}
	}
	return out
}

func benchWrite(b *testing.B, second bool) {
	recs := rows(300_000)
	var size int64
	for _, r := range recs {
		size += int64(len(r[0]) + len(r[1]))
	}
	x := newSite(b)
	if second {
		x.backup("B", data{"t": {form: plugins.Ordered, records: recs}})
	}
	b.SetBytes(size)
	cpu := 0.0
	for b.Loop() {
		if !second {
			b.StopTimer()
			x = newSite(b)
			b.StartTimer()
		}
		c := cpuSeconds()
		x.backup("B", data{"t": {form: plugins.Ordered, records: recs}})
		cpu += cpuSeconds() - c
	}
	b.ReportMetric(float64(size)*float64(b.N)/(1<<20)/cpu, "MiB/CPU-s")
}

func BenchmarkBackup(b *testing.B)       { benchWrite(b, false) }
func BenchmarkBackupSecond(b *testing.B) { benchWrite(b, true) }

// BenchmarkFiles backs up files that do not shrink, as SSTables are: to a new
// store, and with the verification that a backup ends with.
func BenchmarkFiles(b *testing.B) {
	const files, size = 4, 64 << 20
	d := data{}
	for i := range files {
		d[fmt.Sprint(i)] = content{form: plugins.File, file: noise(uint64(i), size)}
	}
	for _, verify := range []bool{false, true} {
		b.Run(map[bool]string{false: "copy", true: "copy and verify"}[verify], func(b *testing.B) {
			b.SetBytes(files * size)
			cpu := 0.0
			for b.Loop() {
				b.StopTimer()
				x := newSite(b)
				ref := x.next("B")
				b.StartTimer()
				c := cpuSeconds()
				u := x.begin(ref, unitA, UnitOptions{})
				var g errgroup.Group
				for name, f := range d {
					g.Go(func() error { return fill(b.Context(), u, data{name: f}) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
				if _, err := u.Finish(b.Context(), meta); err != nil {
					b.Fatal(err)
				}
				if verify {
					key := x.w.ContentKey
					r := x.r
					r.ContentKey = &key
					rep, err := x.s.Verify(b.Context(), ref, VerifyOptions{NewOnly: true, Unsealed: true, Reader: &r}, nil)
					if err != nil || rep.Err() != nil || rep.Read < files*size {
						b.Fatal(err, rep)
					}
				}
				cpu += cpuSeconds() - c
			}
			b.ReportMetric(files*size*float64(b.N)/(1<<20)/cpu, "MiB/CPU-s")
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	x := newSite(b)
	recs := rows(300_000)
	ref, m := x.backup("B", data{"t": {form: plugins.Ordered, records: recs}})
	b.SetBytes(m.Totals.Bytes)
	cpu := 0.0
	for b.Loop() {
		c := cpuSeconds()
		u, err := x.s.OpenUnit(b.Context(), ref, unitA, x.r)
		if err != nil {
			b.Fatal(err)
		}
		r, err := u.Open(b.Context(), "t")
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			if _, _, err = r.Next(); err != nil {
				break
			}
			n++
		}
		if n != len(recs) {
			b.Fatal(n, err)
		}
		r.Close()
		u.Close()
		cpu += cpuSeconds() - c
	}
	b.ReportMetric(float64(m.Totals.Bytes)*float64(b.N)/(1<<20)/cpu, "MiB/CPU-s")
}
