package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
)

// selected are the instances that names mean: "etcd" all of its instances,
// "etcd@east" one; none at all means every instance.
func (st *state) selected(names []string) ([]instance, error) {
	if len(names) == 0 {
		return st.instances(), nil
	}
	var ins []instance
	for _, n := range names {
		found := false
		for _, in := range st.instances() {
			if n == in.component || parseInstance(n) == in {
				ins, found = append(ins, in), true
			}
		}
		if !found {
			return nil, fmt.Errorf("this lab has no %q: look at `lab env`", n)
		}
	}
	return ins, nil
}

// forEach runs do for every selected instance, at most two at a time.
func (l *Lab) forEach(ctx context.Context, names []string, do func(context.Context, engine.Engine, instance, []engine.Member) error) error {
	st, err := l.read()
	if err != nil {
		return err
	}
	ins, err := st.selected(names)
	if err != nil {
		return err
	}
	table := engines(st.Versions)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, in := range ins {
		g.Go(func() error {
			if err := do(ctx, table[in.component].engine, in, st.members(in.component, in.name)); err != nil {
				return fmt.Errorf("%s: %w", in, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Fill replaces the content of the named components (all by default) by
// realistic data and every awkward value. size is small or large. Equal seeds
// give equal content, except between two instances of one component, which differ.
func (l *Lab) Fill(ctx context.Context, seed int64, size string, components ...string) error {
	if size != "small" && size != "large" {
		return fmt.Errorf("unknown size %q: give small or large", size)
	}
	return l.forEach(ctx, components, func(ctx context.Context, e engine.Engine, in instance, ms []engine.Member) error {
		return e.Fill(ctx, ms, instanceSeed(seed, in), size)
	})
}

// Wreck changes, deletes and adds at every level.
func (l *Lab) Wreck(ctx context.Context, seed int64, components ...string) error {
	return l.forEach(ctx, components, func(ctx context.Context, e engine.Engine, in instance, ms []engine.Member) error {
		return e.Wreck(ctx, ms, instanceSeed(seed, in))
	})
}

// instanceSeed lets a second instance hold other data, so that a mix-up of instances shows.
func instanceSeed(seed int64, in instance) int64 {
	if in.name == central {
		return seed
	}
	for _, c := range in.name {
		seed = seed*31 + int64(c)
	}
	return seed
}

// Fingerprint writes the full content and definitions of the named components
// (all by default) as sorted lines, one instance after the other, each closed
// by "fingerprint <component[@instance]> <sha256>". It returns the sums by
// component[@instance]. Lines of the kind "ephemeral" are listed, not summed.
func (l *Lab) Fingerprint(ctx context.Context, w io.Writer, components ...string) (map[string]string, error) {
	type result struct{ text, sum string }
	var mu sync.Mutex
	results := map[instance]result{}
	err := l.forEach(ctx, components, func(ctx context.Context, e engine.Engine, in instance, ms []engine.Member) error {
		var text bytes.Buffer
		if err := e.Fingerprint(ctx, ms, &text); err != nil {
			return err
		}
		sum, err := sumLines(text.Bytes())
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		results[in] = result{text.String(), sum}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	st, err := l.read()
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, in := range st.instances() {
		r, ok := results[in]
		if !ok {
			continue
		}
		sums[in.String()] = r.sum
		if _, err := fmt.Fprintf(w, "%sfingerprint %s %s\n", r.text, in, r.sum); err != nil {
			return nil, fmt.Errorf("write the fingerprint: %w", err)
		}
	}
	return sums, nil
}

// sumLines hashes all lines but those of the kind "ephemeral".
func sumLines(text []byte) (string, error) {
	h := sha256.New()
	for len(text) > 0 {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		if !found {
			return "", fmt.Errorf("the fingerprint's last line has no end: %q", line)
		}
		if !bytes.HasPrefix(line, []byte("ephemeral\t")) {
			h.Write(line)
			h.Write([]byte("\n"))
		}
		text = rest
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
