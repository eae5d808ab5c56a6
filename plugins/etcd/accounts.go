package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// accountsFile, in the scratch directory, says that RestoreAccounts has ended:
// Compare then looks at users, roles and authentication, too.
const accountsFile = "etcd-accounts-restored"

// AccountArtifact is true for users, roles and whether authentication is on.
func (s *session) AccountArtifact(name string) bool {
	return name == artUsers || name == artRoles || name == artAuth
}

// RestoreAccounts makes roles, users and the state of authentication equal to
// the backup. Passwords cannot be set by their hashes: users that keep another
// one, or get a random one, are named in Report.Inexact.
func (s *session) RestoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (plugins.Report, error) {
	rep, err := s.restoreAccounts(ctx, run, r)
	if err != nil {
		return rep, fmt.Errorf("restore the accounts of %s: %w", s.cfg.target, err)
	}
	return rep, os.WriteFile(filepath.Join(run.Scratch, accountsFile), nil, 0o600)
}

func (s *session) restoreAccounts(ctx context.Context, run plugins.Run, r plugins.ArtifactReader) (rep plugins.Report, err error) {
	want, err := read(ctx, r)
	if err != nil {
		return rep, err
	}
	g, err := s.begin(ctx, run)
	if err != nil {
		return rep, err
	}
	v, err := s.look(ctx, run)
	if err != nil {
		return rep, err
	}
	if err := v.close(); err != nil {
		return rep, err
	}
	a := &accounts{s: s, g: g, want: want, v: v}
	if want.auth && !v.auth && s.cfg.user == "" {
		return rep, fmt.Errorf("authentication was on in the backup, is off now, and this session has no user: %w: "+
			"give user root and a password file in the estate file", plugins.ErrConfig)
	}
	rep.Inexact = a.inexact()
	steps := []func(context.Context) error{a.roles, a.users, a.removeRoles}
	switch {
	case v.auth && !want.auth: // root can be removed only while authentication is off
		steps = append([]func(context.Context) error{a.switchAuth}, steps...)
	case !v.auth && want.auth:
		steps = append(steps, a.switchAuth)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return rep, err
		}
	}
	rep.Removed, rep.Records = a.removed, int64(a.changed)
	if a.changed+a.removed > 0 {
		rep.Artifacts = 1
	} else {
		rep.Unchanged = 1
	}
	rep.ServerVersion, rep.Consistency = v.version, "account by account"
	return rep, nil
}

// accounts is the state of one attempt.
type accounts struct {
	s                *session
	g                *guard
	want             *stored
	v                *view
	changed, removed int
}

// do runs one request that etcd cannot make conditional, right after a check of the epoch.
// done are errors that mean that an earlier attempt has done it.
func (a *accounts) do(ctx context.Context, what string, call func() error, done ...error) error {
	if err := a.g.check(ctx); err != nil {
		return err
	}
	if err := ignore(call(), done...); err != nil {
		return a.s.cfg.wrap(what, err)
	}
	a.changed++
	return nil
}

// roles adds missing roles and makes the permissions of all equal.
func (a *accounts) roles(ctx context.Context) error {
	c, live := a.s.c, roleRecords(a.v.roles)
	for _, name := range slices.Sorted(maps.Keys(a.want.roles)) {
		if bytes.Equal(live[name], a.want.roles[name]) {
			continue
		}
		var want, have []permission
		if err := json.Unmarshal(a.want.roles[name], &want); err != nil {
			return fmt.Errorf("role %q: %w: %w", name, plugins.ErrData, err)
		}
		if old, ok := live[name]; !ok {
			if err := a.do(ctx, "add a role", func() error { _, err := c.RoleAdd(ctx, name); return err }, rpctypes.ErrRoleAlreadyExist); err != nil {
				return err
			}
		} else if err := json.Unmarshal(old, &have); err != nil {
			return err
		}
		for _, p := range have {
			if slices.ContainsFunc(want, p.sameRange) {
				continue // granting again sets the new type
			}
			err := a.do(ctx, "revoke a permission", func() error {
				_, err := c.RoleRevokePermission(ctx, name, string(p.Key), string(p.End))
				return err
			}, rpctypes.ErrPermissionNotGranted)
			if err != nil {
				return err
			}
		}
		for _, p := range want {
			if slices.ContainsFunc(have, func(h permission) bool { return p.sameRange(h) && p.Type == h.Type }) {
				continue
			}
			err := a.do(ctx, "grant a permission", func() error {
				_, err := c.RoleGrantPermission(ctx, name, string(p.Key), string(p.End), clientv3.PermissionType(p.Type))
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (p permission) sameRange(o permission) bool {
	return bytes.Equal(p.Key, o.Key) && bytes.Equal(p.End, o.End)
}

// users adds, changes and removes users. The session's own user stays, with the role root.
func (a *accounts) users(ctx context.Context) error {
	c, live := a.s.c, userRecords(a.v.users)
	for _, name := range slices.Sorted(maps.Keys(a.want.users)) {
		if bytes.Equal(live[name], a.want.users[name]) {
			continue
		}
		var want, have userRecord
		if err := json.Unmarshal(a.want.users[name], &want); err != nil {
			return fmt.Errorf("user %q: %w: %w", name, plugins.ErrData, err)
		}
		old, exists := live[name]
		if exists {
			if err := json.Unmarshal(old, &have); err != nil {
				return err
			}
		}
		if exists && have.NoPassword != want.NoPassword && name != a.s.cfg.user && name != "root" {
			err := a.do(ctx, "remove a user to add it anew", func() error { _, err := c.UserDelete(ctx, name); return err }, rpctypes.ErrUserNotFound)
			if err != nil {
				return err
			}
			exists, have.Roles = false, nil
		}
		if !exists {
			if err := a.add(ctx, name, want.NoPassword); err != nil {
				return err
			}
		}
		for _, role := range want.Roles {
			if slices.Contains(have.Roles, role) {
				continue
			}
			if err := a.do(ctx, "grant a role", func() error { _, err := c.UserGrantRole(ctx, name, role); return err }); err != nil {
				return err
			}
		}
		for _, role := range have.Roles {
			if slices.Contains(want.Roles, role) || name == a.s.cfg.user && role == rootRole {
				continue
			}
			err := a.do(ctx, "take a role away", func() error { _, err := c.UserRevokeRole(ctx, name, role); return err }, rpctypes.ErrRoleNotGranted)
			if err != nil {
				return err
			}
		}
	}
	for name := range live {
		if _, ok := a.want.users[name]; ok || name == a.s.cfg.user {
			continue
		}
		err := a.do(ctx, "remove a user", func() error { _, err := c.UserDelete(ctx, name); return err }, rpctypes.ErrUserNotFound)
		if err != nil {
			return err
		}
		a.removed++
	}
	return nil
}

// add makes a user: the session's own with the password in use, others with a random one that nobody knows.
func (a *accounts) add(ctx context.Context, name string, noPassword bool) error {
	password := rand.Text()
	switch {
	case noPassword:
		password = ""
	case name == a.s.cfg.user:
		password = a.s.cfg.password
	}
	return a.do(ctx, "add a user", func() error {
		_, err := a.s.c.UserAddWithOptions(ctx, name, password, &clientv3.UserAddOptions{NoPassword: noPassword})
		return err
	}, rpctypes.ErrUserAlreadyExist)
}

// removeRoles removes roles that appeared later; users have none of them any more.
func (a *accounts) removeRoles(ctx context.Context) error {
	for name := range a.v.roles {
		if _, ok := a.want.roles[name]; ok || name == rootRole && a.want.auth {
			continue
		}
		err := a.do(ctx, "remove a role", func() error { _, err := a.s.c.RoleDelete(ctx, name); return err }, rpctypes.ErrRoleNotFound)
		if err != nil {
			return err
		}
		a.removed++
	}
	return nil
}

func (a *accounts) switchAuth(ctx context.Context) error {
	if a.want.auth {
		return a.do(ctx, "switch authentication on", func() error { _, err := a.s.c.AuthEnable(ctx); return err })
	}
	return a.do(ctx, "switch authentication off", func() error { _, err := a.s.c.AuthDisable(ctx); return err }, rpctypes.ErrAuthNotEnabled)
}

// inexact names the users whose passwords will not be those of the backup.
func (a *accounts) inexact() []plugins.Inexact {
	return passwordsOff(a.want, a.v, a.s.cfg.user)
}

func passwordsOff(want *stored, v *view, self string) []plugins.Inexact {
	var out []plugins.Inexact
	add := func(name, why string) {
		out = append(out, plugins.Inexact{What: fmt.Sprintf("password of user %q", name), Why: why})
	}
	for _, name := range slices.Sorted(maps.Keys(want.users)) {
		var w userRecord
		if json.Unmarshal(want.users[name], &w) != nil || w.NoPassword {
			continue
		}
		live, ok := v.users[name]
		switch {
		case !ok && name == self:
			add(name, "the user was missing; it has the password of the estate file now")
		case !ok || live.GetOptions().GetNoPassword():
			add(name, "the user was missing, and etcd takes no password hashes; it has a random password now: set a new one with etcdctl user passwd")
		case !bytes.Equal(live.GetPassword(), want.passwords[name]):
			add(name, "it was changed after the backup, and etcd takes no password hashes; the present one stays")
		}
	}
	if _, ok := want.users[self]; !ok && self != "" && v.users[self] != nil {
		out = append(out, plugins.Inexact{What: fmt.Sprintf("user %q", self), Why: "it is not in the backup, but this very restore works with it: remove it by hand"})
	}
	return out
}

// accountsDone says whether Compare must look at the accounts: not between
// Restore and RestoreAccounts of one run.
func accountsDone(run plugins.Run) (bool, error) {
	if run.Operation != plugins.OpRestore && run.Operation != plugins.OpRollback {
		return true, nil
	}
	_, err := os.Stat(filepath.Join(run.Scratch, accountsFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
