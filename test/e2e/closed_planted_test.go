//go:build hostile

package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/csobackup/cso_backupnrestore/internal/keys"
	"github.com/csobackup/cso_backupnrestore/internal/manifest"
	"github.com/csobackup/cso_backupnrestore/internal/problem"
	"github.com/csobackup/cso_backupnrestore/workflows"
)

// TestPlanted: a VM in somebody else's hands stored garbage under the content
// ids of its unit. It harms that unit of that backup only, verify finds it, the
// next backup stores the data anew. A manifest that was changed is refused.
func TestPlanted(t *testing.T) {
	b := small.bench(t)
	ctx := t.Context()
	b.check(b.Fill(ctx, 41, "small"))
	good := b.fingerprint()
	ref := b.backup("PLANTED")
	planted := b.plant(ref, "etcd")

	var v workflows.VerifyResult
	b.ask(fine, &v, "verify", "PLANTED", "--quick") // sizes and hashes fit, the attacker wrote the list
	d := b.ask([]int{problem.Integrity.Exit()}, nil, "verify", "PLANTED")
	if d.Error == nil || d.Error.Code != problem.Integrity || !strings.Contains(d.Error.Message, "in unit etcd/central/cluster") {
		t.Fatalf("verify: %+v", d.Error)
	}
	if !b.quarantined(planted) {
		t.Error("what was planted is not in quarantine")
	}
	var r workflows.Result
	b.ask(fine, &r, "-b", "backup", "-s", "ANEW")
	if r.New == 0 {
		t.Error("the next backup stored nothing anew")
	}

	b.check(b.Wreck(ctx, 41))
	now := b.fingerprint()
	refused := func(code problem.Code, args ...string) {
		t.Helper()
		epoch := b.journal().Claim.Epoch
		d := b.ask([]int{code.Exit()}, nil, append([]string{"-b", "restore"}, args...)...)
		if d.Error == nil || d.Error.Code != code || d.Error.Hint == "" {
			t.Errorf("%v: %+v", args, d.Error)
		}
		same(t, "epoch, which only a fenced run raises", epoch, b.journal().Claim.Epoch)
		b.settled()
		b.equal(now)
	}
	refused(problem.Integrity, "-s", ref)
	refused(problem.Integrity, "-s", ref, "-t", "etcd")
	b.restored("-s", ref, "-t", "secrets,certificates")
	b.equal(good, "secrets", "certificates")
	now = b.fingerprint()

	// Manifests: one bit of meaning, another backup's, a newer version's.
	file := b.path("backups", r.Backup, "manifest.json")
	whole, err := os.ReadFile(file)
	b.check(err)
	put := func(content []byte) { // not through the link that others may share
		b.check(os.Remove(file))
		b.check(os.WriteFile(file, content, 0o600))
	}
	change := func(old, new string) []byte {
		t.Helper()
		changed := bytes.Replace(whole, []byte(old), []byte(new), 1)
		if bytes.Equal(changed, whole) {
			t.Fatalf("the manifest has no %s", old)
		}
		return changed
	}
	put(change(`"consistent": true`, `"consistent": false`))
	refused(problem.Integrity, "-s", r.Backup)
	put(change(`"format": 2`, `"format": 3`))
	refused(problem.Failed, "-s", r.Backup)
	other, err := os.ReadFile(b.path("backups", ref, "manifest.json"))
	b.check(err)
	put(other)
	refused(problem.Integrity, "-s", r.Backup)
	put(whole)
	b.restored("-s", r.Backup)
	b.equal(good)
}

// plant replaces the largest piece of a unit, in every place that shares it,
// by garbage that is encrypted to the right recipients, and makes list, sums
// and seal fit, as a worker can that has not stored the truth in the first place.
func (b *bench) plant(ref, component string) string {
	b.t.Helper()
	dir := b.path("backups", ref)
	w, err := keys.LoadWriter(b.path("state", "keys"))
	b.check(err)
	r, err := keys.LoadReader(b.path("state", "keys"))
	b.check(err)
	raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	b.check(err)
	m, err := manifest.Decode(raw)
	b.check(err)
	for i, e := range m.Units {
		if e.Component != component {
			continue
		}
		at := filepath.Join(append([]string{dir}, e.Path()...)...)
		raw, err := os.ReadFile(filepath.Join(at, "unit.json"))
		b.check(err)
		u, err := manifest.DecodeUnit(raw)
		b.check(err)
		p := &u.Pieces[0]
		for j := range u.Pieces {
			if u.Pieces[j].Stored > p.Stored {
				p = &u.Pieces[j]
			}
		}
		var sealed bytes.Buffer
		out, err := age.Encrypt(&sealed, w.Recipients...)
		b.check(err)
		_, err = out.Write(bytes.Repeat([]byte("garbage "), 1000))
		b.check(errors.Join(err, out.Close()))
		delta := int64(sealed.Len()) - p.Stored
		p.Stored, p.SHA256 = int64(sealed.Len()), manifest.SHA256(sealed.Bytes())
		u.Stored += delta
		m.Units[i].Stored += delta
		m.Totals.Stored += delta
		if p.New {
			u.StoredNew += delta
			m.Units[i].StoredNew += delta
			m.Totals.StoredNew += delta
		}
		file := filepath.Join(at, p.FileName())
		b.check(os.WriteFile(file, sealed.Bytes(), 0o600)) // truncates: all links see it
		list, err := manifest.EncodeUnit(u)
		b.check(err)
		b.check(os.WriteFile(filepath.Join(at, "unit.json"), list, 0o600))
		m.Units[i].SHA256 = manifest.SHA256(list)
		whole, err := manifest.Encode(m, *r.ManifestKey)
		b.check(err)
		b.check(os.WriteFile(filepath.Join(dir, "manifest.json"), whole, 0o600))
		return file
	}
	b.t.Fatalf("%s has no unit of %s", ref, component)
	return ""
}
