package plugins

import (
	"fmt"
	"os"
	"strings"
)

// Self is the member this session is for: the one named, or the first.
func (t Target) Self() (Member, error) {
	for _, m := range t.Members {
		if t.Member == "" || m.Name == t.Member {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("%s: no member %q in the estate file: %w", t, t.Member, ErrConfig)
}

// String is "component" for the central instance and "component@instance" otherwise.
func (t Target) String() string {
	if t.Instance == "" || t.Instance == DefaultInstance {
		return t.Component
	}
	return t.Component + "@" + t.Instance
}

// Secret resolves a secret that the options name by reference: NAME_file (a
// path) or NAME_env (an environment variable). Trailing newlines are cut.
// Without either it is empty.
func (m Member) Secret(name string) (string, error) {
	if p := m.Options[name+"_file"]; p != "" {
		b, err := os.ReadFile(p)
		if err != nil {
			return "", fmt.Errorf("%s of %s: %w: check %s_file in the estate file", name, m.Name, err, name)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	if e := m.Options[name+"_env"]; e != "" {
		v, ok := os.LookupEnv(e)
		if !ok {
			return "", fmt.Errorf("%s of %s: environment variable %s is not set: %w", name, m.Name, e, ErrConfig)
		}
		return v, nil
	}
	return "", nil
}
