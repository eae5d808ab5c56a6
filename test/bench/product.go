package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// estate is a lab of one chapter.
type estate struct {
	*lab.Lab
	b   *bench
	env []string
}

// start brings up a lab with these components, and the product.
func (b *bench) start(ctx context.Context, name string, components ...string) (*estate, error) {
	return b.startAs(ctx, name, nil, components...)
}

// startAs is start with chosen versions by component.
func (b *bench) startAs(ctx context.Context, name string, versions map[string]string, components ...string) (*estate, error) {
	return b.startRing(ctx, name, 1, versions, components...)
}

// startRing is startAs with clusters of so many members.
func (b *bench) startRing(ctx context.Context, name string, members int, versions map[string]string, components ...string) (*estate, error) {
	l, err := lab.Start(ctx, lab.Options{Dir: filepath.Join(b.dir, name), Components: components, Members: members, Versions: versions, Out: os.Stderr})
	if err != nil {
		return nil, err
	}
	e := &estate{Lab: l, b: b}
	if e.env, err = l.Env(); err == nil {
		err = l.Fill(ctx, 1, "small", "secrets") // an estate without its files is refused
	}
	if err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *estate) stop() {
	if err := e.Down(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	_ = os.RemoveAll(e.Dir())
}

func (e *estate) value(key string) string {
	for _, l := range e.env {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return v
		}
	}
	return ""
}

// pids of the named members and services, and of worker and cso-temporald.
func (e *estate) pids(names ...string) ([]int, error) {
	var out []int
	for _, n := range append(names, "worker", "temporald") {
		p, err := e.Pid(n)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// cso runs the product's command line and reads its result.
func (e *estate) cso(ctx context.Context, result any, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(e.b.bin, "cso_backupnrestore"), append(args, "-o", "json")...)
	cmd.Env = append(os.Environ(), e.env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 3 {
		return fmt.Errorf("%s: %w: %s%s", strings.Join(args, " "), err, out, errs.String())
	}
	if result == nil {
		return nil
	}
	var doc struct {
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(doc.Result, result)
}

// memory writes the most that the worker has taken since the chapter began.
func (e *estate) memory() error {
	pid, err := e.Pid("worker")
	if err != nil {
		return err
	}
	mem, err := peak(pid)
	if err != nil {
		return err
	}
	e.b.page.say("\nThe worker's peak memory over all of this: %d MiB; 256 are allowed.\n", mem)
	return nil
}

// backup is the product's contender; what it stored is told.
func (e *estate) backup(ctx context.Context, name string, last *workflows.Result) contender {
	return contender{name: "cso_backupnrestore -b backup", prepare: e.forget, run: func() (string, error) {
		var res workflows.Result
		if err := e.cso(ctx, &res, "-b", "backup", "-s", name); err != nil {
			return "", err
		}
		*last = res
		return fmt.Sprintf("copy alone %s, %s read, %s stored", slowest(res).Round(10*time.Millisecond), size(res.Bytes), size(res.New)), nil
	}}
}

// forget empties the store: the next backup stores everything.
func (e *estate) forget() error {
	root := e.value("LAB_BACKUPS")
	list, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, d := range list {
		if !strings.HasPrefix(d.Name(), ".") {
			if err := os.RemoveAll(filepath.Join(root, d.Name())); err != nil {
				return err
			}
		}
	}
	objects, err := filepath.Glob(filepath.Join(root, ".cso", "objects", "*"))
	for _, o := range objects {
		if err := os.RemoveAll(o); err != nil {
			return err
		}
	}
	return err
}

// slowest is the time of the unit that took longest.
func slowest(r workflows.Result) time.Duration {
	var d time.Duration
	for _, u := range r.Units {
		d = max(d, u.Took)
	}
	return d
}

// noting is the same run that also leaves how long its slowest unit took by itself.
func (c contender) noting(alone *time.Duration, res *workflows.Result) contender {
	run := c.run
	c.run = func() (string, error) {
		told, err := run()
		*alone = slowest(*res)
		return told, err
	}
	return c
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// row is a line of a table of contenders.
func row(name string, f, product figure) string {
	return fmt.Sprintf("| %s | %.2f | %.2f | %.2f | %s |", name, f.wall.Seconds(), f.cpu.Seconds(), f.wall.Seconds()/product.wall.Seconds(), f.extra)
}

const raceHead = "| command | wall s | CPU s | ÷ product | |"

// report writes the table of a race; the product is the first contender.
func (b *bench) report(figures map[string]figure, order ...contender) {
	var rows []string
	for _, c := range order {
		rows = append(rows, row(c.name, figures[c.name], figures[order[0].name]))
	}
	b.page.table(raceHead, rows...)
}
