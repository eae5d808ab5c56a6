package keys

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
)

// FuzzIdentity: a file that is no identity is refused, and never quoted.
func FuzzIdentity(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(identityText(id, Key{1})))
	f.Add("AGE-SECRET-KEY-1" + strings.Repeat("Q", 58))
	f.Add(checkPrefix + "\n\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseIdentity([]byte(s))
		if err != nil {
			if !errors.Is(err, ErrIdentity) {
				t.Errorf("%v", err)
			}
			for l := range strings.Lines(s) {
				if l = strings.TrimSpace(l); len(l) > 30 && strings.Contains(err.Error(), l) {
					t.Errorf("the error quotes the file: %v", err)
				}
			}
			return
		}
		if len(r.Identities) == 0 {
			t.Error("accepted without an identity")
		}
	})
}

// FuzzRecipients: what is accepted encrypts, and its fingerprint does not depend on order.
func FuzzRecipients(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("# c\n" + id.Recipient().String() + "\n\n" + id.Recipient().String())
	f.Add("age1" + strings.Repeat("q", 58))
	f.Add("ssh-ed25519 AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		rs, lines, err := ParseRecipients([]byte(s))
		if err != nil {
			if !errors.Is(err, ErrKeys) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(rs) != len(lines) || len(rs) == 0 {
			t.Errorf("%d recipients of %d lines", len(rs), len(lines))
		}
		if _, err := Wrap(Writer{Recipients: rs, Lines: lines}, Key{}); err != nil {
			t.Errorf("accepted, and cannot encrypt: %v", err)
		}
	})
}

// FuzzUnwrap: the wrapped keys of a hostile manifest, which are age files.
func FuzzUnwrap(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	w := Writer{Recipients: []age.Recipient{id.Recipient()}, Lines: []string{id.Recipient().String()}}
	good, err := Wrap(w, Key{2})
	if err != nil {
		f.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(good.Manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("age-encryption.org/v1\n-> scrypt AAAA 63\n" + strings.Repeat("A", 43) + "\n--- \n"))
	f.Add(raw[:len(raw)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := unwrap([]age.Identity{id}, base64.StdEncoding.EncodeToString(b))
		if err != nil && !errors.Is(err, ErrKeys) && !errors.Is(err, ErrIdentity) {
			t.Errorf("%v: of no known kind", err)
		}
		if err == nil && k != (Key{2}) {
			t.Error("a key out of nothing")
		}
		if _, err := unwrap([]age.Identity{id}, string(b)); err == nil && string(b) != good.Manifest {
			// Only base64 of a whole age file to this identity opens.
			if d, derr := base64.StdEncoding.DecodeString(string(b)); derr != nil || len(d) == 0 {
				t.Error("not base64, and yet opened")
			}
		}
	})
}
