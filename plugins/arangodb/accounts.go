package arangodb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

const accountPasses = 3

// readAccounts reads the records of all users but the product's own: name, password hash, grants. The interface
// for users never shows the hash, hence the dump.
func (v *view) readAccounts(ctx context.Context, l *layout) (map[string][]byte, error) {
	c := l.databases[systemDB].collections[usersCollection]
	if c == nil {
		return nil, fmt.Errorf("the inventory has no %s: %w: give a user with write access to %s", usersCollection, plugins.ErrAuth, systemDB)
	}
	st, err := v.read(ctx, systemDB, c, plugins.Run{}, func(d document) ([]byte, error) { return d.body, nil })
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", v.s.hint(err))
	}
	defer st.close()
	out := map[string][]byte{}
	for {
		_, b, err := st.read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
		o, err := parseObject(b)
		if err != nil {
			return nil, fmt.Errorf("accounts: %w", err)
		}
		if n := o.str("user"); n != "" && !strings.HasPrefix(n, ownAccounts) {
			out[n] = o.without("_key").text()
		}
	}
}

// AccountArtifact says whether an artifact holds accounts.
func (s *session) AccountArtifact(name string) bool { return name == accountsName }

// RestoreAccounts makes the users equal to the backup, password hashes included: through the interface of
// arangorestore, as no documented one takes a hash.
func (s *session) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := s.restoreAccounts(ctx, run, r)
	if err == nil {
		if ferr := s.furl(ctx); ferr != nil {
			run.Log.Warn("the hot backup below this restore is kept by the servers until the next backup", "error", ferr)
		}
	}
	return rep, s.finish(ctx, err)
}

func (s *session) restoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep := plugins.Report{ServerVersion: s.version.text, Consistency: "all changed accounts in one request, removals after it"}
	want, err := readSmall(ctx, r, accountsName)
	if err != nil {
		return rep, ended(ctx, err)
	}
	if len(want) == 0 {
		return rep, fmt.Errorf("the backup holds no account at all: %w", plugins.ErrData)
	}
	if err := s.claim(ctx, run); err != nil {
		return rep, err
	}
	for pass := 0; ; pass++ {
		n, removed, err := s.switchAccounts(ctx, run, want)
		if err != nil {
			return rep, err
		}
		rep.Records, rep.Removed = rep.Records+int64(n), rep.Removed+removed
		if n+removed > 0 {
			rep.Artifacts = 1
		} else {
			return rep, remember(run)
		}
		if pass == accountPasses {
			return rep, fmt.Errorf("accounts are not as they were written, or somebody else keeps changing them: %w", plugins.ErrData)
		}
	}
}

func (s *session) switchAccounts(ctx context.Context, run plugins.Run, want map[string][]byte) (changed, removed int, err error) {
	live, err := s.liveAccounts(ctx, run)
	if err != nil {
		return 0, 0, err
	}
	var body bytes.Buffer
	for _, n := range accountNames(want) {
		if bytes.Equal(live[n], want[n]) {
			continue
		}
		changed++
		fmt.Fprintf(&body, "{\"type\":2300,\"key\":%s,\"data\":%s}\n", mustJSON(n), want[n])
	}
	if changed > 0 {
		_, err := s.c.do(ctx, call{method: "PUT", db: systemDB, path: "/_api/replication/restore-data", query: map[string]string{"collection": usersCollection}, raw: body.Bytes()})
		if err != nil {
			return 0, 0, fmt.Errorf("restore accounts: %w", err)
		}
	}
	for _, n := range accountNames(live) {
		if want[n] != nil {
			continue
		}
		if _, err := s.c.do(ctx, call{method: "DELETE", db: systemDB, path: "/_api/user/" + esc(n)}); err != nil && !statused(err, 404) {
			return changed, removed, fmt.Errorf("remove account %s: %w", n, err)
		}
		removed++
	}
	return changed, removed, nil
}

func (s *session) liveAccounts(ctx context.Context, run plugins.Run) (map[string][]byte, error) {
	v, err := s.snapshot(ctx, run)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.release(ctx) }()
	d := &database{name: systemDB}
	if err := v.readDatabase(ctx, d); err != nil {
		return nil, err
	}
	return v.readAccounts(ctx, &layout{databases: map[string]*database{systemDB: d}})
}

func mustJSON(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return b
}

// readSmall reads an artifact that is held in memory.
func readSmall(ctx context.Context, r plugins.ArtifactReader, name string) (map[string][]byte, error) {
	rd, err := r.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", name, err)
	}
	defer rd.Close()
	out := map[string][]byte{}
	for {
		k, v, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", name, err)
		}
		out[string(k)] = bytes.Clone(v)
	}
}
