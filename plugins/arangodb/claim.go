package arangodb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A claim is the right to write. It has two parts.
//
// The guard is a document that names the attempt which holds the server, and is
// replaced only by who has read the revision it had: of two that claim at once one
// begins anew and finds the other's epoch.
//
// The account is made for one attempt, has a password that nobody else knows, and
// everything the attempt writes is sent under it. Who claims removes the
// accounts of earlier attempts: the server itself then refuses whatever an overtaken
// attempt still sends, data and definitions alike. In a cluster each coordinator
// learns of accounts a moment later; who claims waits until each of them takes the new
// account, which was made after the old ones were removed.
type claim struct {
	s       *session
	run     plugins.Run
	account string
	rev     string      // of the guard
	super   *superToken // under a fence, instead of the account
}

// guard is the document.
type guard struct {
	Key     string `json:"_key"`
	Rev     string `json:"_rev,omitempty"`
	Epoch   uint64 `json:"epoch"`
	Rank    int    `json:"rank"`
	Attempt string `json:"attempt"`
	Super   bool   `json:"super,omitempty"` // it writes as the super user, by tokens that expire
}

const guardPath = "/_api/document/" + guardCollection + "/claim"

// rank orders the operations of one epoch: what undoes a restore comes after it.
func rank(op plugins.Operation) int {
	if op == plugins.OpRollback {
		return 1
	}
	return 0
}

func (s *session) guard(ctx context.Context, c *client) (guard, error) {
	var g guard
	err := c.get(ctx, systemDB, guardPath, nil, &g)
	return g, err
}

// own makes the product's own collection, where there is none.
func (s *session) own(ctx context.Context) error {
	// Asked first: a read-only server refuses to make one even if it is there.
	_, err := s.main.do(ctx, call{method: "GET", db: systemDB, path: "/_api/collection/" + guardCollection})
	if !errors.Is(err, plugins.ErrNotFound) {
		return err
	}
	_, err = s.main.do(ctx, call{method: "POST", db: systemDB, path: "/_api/collection", body: map[string]any{"name": guardCollection, "isSystem": true}})
	if numbered(err, errDuplicateName) {
		return nil
	}
	return err
}

// claim takes the right to write; a session that has it for this attempt keeps it.
func (s *session) claim(ctx context.Context, run plugins.Run) error {
	if s.holds != nil && s.holds.run.Epoch == run.Epoch && s.holds.run.Attempt == run.Attempt && rank(s.holds.run.Operation) == rank(run.Operation) {
		return nil
	}
	if err := s.release(); err != nil {
		return err
	}
	k := &claim{s: s, run: run}
	err := k.take(ctx)
	if err != nil {
		if ro, _, merr := s.isReadOnly(ctx); merr == nil && len(ro) > 0 && k.super == nil && statused(err, 403) {
			err = fmt.Errorf("%s is read-only: %w: set it to default: %s", ro[0], plugins.ErrUnavailable, err.Error()) // not wrapped: the credentials are right
		}
		return ended(ctx, fmt.Errorf("%s: claim the right to write: %w", s.target, s.hint(err)))
	}
	s.holds = k
	return nil
}

func (k *claim) take(ctx context.Context) error {
	if err := k.underFence(ctx); err != nil {
		return err
	}
	if err := k.register(ctx); err != nil {
		return err
	}
	if err := k.evict(ctx); err != nil {
		return err
	}
	if k.super != nil {
		k.s.c = k.superClient()
		return nil
	}
	secret := make([]byte, 24)
	rand.Read(secret) // never fails (crypto/rand)
	k.account = fmt.Sprintf("%s%d-%d-%s", ownAccounts, k.run.Epoch, rank(k.run.Operation), hex.EncodeToString(secret[:4]))
	password := hex.EncodeToString(secret)
	m := k.s.main
	user := "/_api/user/" + esc(k.account)
	if _, err := m.do(ctx, call{method: "POST", db: systemDB, path: "/_api/user", body: map[string]any{"user": k.account, "passwd": password, "active": true}}); err != nil && !statused(err, 409) {
		return fmt.Errorf("make the account of this attempt: %w", err)
	}
	for _, of := range []string{systemDB, "*", "*/*"} {
		path := user + "/database"
		for p := range strings.SplitSeq(of, "/") {
			path += "/" + esc(p)
		}
		if _, err := m.do(ctx, call{method: "PUT", db: systemDB, path: path, body: map[string]any{"grant": "rw"}}); err != nil {
			return errors.Join(fmt.Errorf("make the account of this attempt: %w", err), k.drop(ctx, m))
		}
	}
	c := newClient(k.s.tr, k.s.addrs, credentials{user: k.account, password: password}, k.s.timeout)
	c.now.Store(m.now.Load())
	if err := k.known(ctx, c); err != nil {
		return errors.Join(err, k.drop(ctx, m))
	}
	// Somebody may have claimed meanwhile.
	if g, err := k.s.guard(ctx, m); err != nil || g.Rev != k.rev {
		return errors.Join(err, k.fenced(g), k.drop(ctx, m))
	}
	k.s.c = c
	return nil
}

func (k *claim) fenced(g guard) error {
	return fmt.Errorf("epoch %d, the server belongs to epoch %d: %w", k.run.Epoch, g.Epoch, plugins.ErrFenced)
}

// register puts this attempt into the guard.
func (k *claim) register(ctx context.Context) error {
	mine := guard{Key: "claim", Epoch: k.run.Epoch, Rank: rank(k.run.Operation), Attempt: k.run.Attempt, Super: k.super != nil}
	for {
		g, err := k.s.guard(ctx, k.s.main)
		switch {
		case numbered(err, errNoCollection):
			if err := k.s.own(ctx); err != nil {
				return err
			}
			continue
		case numbered(err, errNoDocument):
			err = k.put(ctx, call{method: "POST", db: systemDB, path: "/_api/document/" + guardCollection, body: mine})
		case err != nil:
			return err
		case g.Epoch > mine.Epoch || g.Epoch == mine.Epoch && g.Rank > mine.Rank:
			return k.fenced(g)
		default:
			err = k.put(ctx, call{method: "PUT", db: systemDB, path: guardPath, body: mine, header: map[string]string{"If-Match": `"` + g.Rev + `"`}})
		}
		if statused(err, 412, 409) {
			continue
		}
		if err == nil && g.Super && g.Attempt != mine.Attempt {
			err = plugins.Sleep(ctx, tokenLife+clockSkew) // until the last token of the one before has expired
		}
		return err
	}
}

func (k *claim) put(ctx context.Context, q call) error {
	q.query = map[string]string{"waitForSync": "true"}
	a, err := k.s.main.do(ctx, q)
	if err != nil {
		return err
	}
	var g guard
	err = a.decode(&g)
	k.rev = g.Rev
	return err
}

// evict removes the accounts of earlier attempts. Those of later ones stay: then this one has been overtaken.
func (k *claim) evict(ctx context.Context) error {
	var list struct{ Result []struct{ User string } }
	if err := k.s.main.get(ctx, systemDB, "/_api/user", nil, &list); err != nil {
		return err
	}
	for _, u := range list.Result {
		rest, ok := strings.CutPrefix(u.User, ownAccounts)
		if !ok {
			continue
		}
		var epoch uint64
		var r int
		if _, err := fmt.Sscanf(rest, "%d-%d-", &epoch, &r); err != nil {
			continue // somebody else's, of a like name
		}
		if epoch > k.run.Epoch || epoch == k.run.Epoch && r > rank(k.run.Operation) {
			return k.fenced(guard{Epoch: epoch})
		}
		if _, err := k.s.main.do(ctx, call{method: "DELETE", db: systemDB, path: "/_api/user/" + esc(u.User)}); err != nil && !statused(err, 404) {
			return fmt.Errorf("remove the account of an earlier attempt: %w", err)
		}
	}
	return nil
}

// known waits until every coordinator takes the account; one that does not answer takes no writes either.
func (k *claim) known(ctx context.Context, c *client) error {
	deadline := time.Now().Add(30 * time.Second)
	asked := 0
	for i := range c.conns {
		for {
			_, err := c.do(ctx, call{method: "GET", db: systemDB, path: "/_api/version", member: i + 1, once: true})
			if err == nil {
				asked++
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !errors.Is(err, plugins.ErrAuth) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not take the account of this attempt: %w", c.addrs[i], err)
			}
			if err := plugins.Sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	if asked == 0 {
		return fmt.Errorf("no member answers: %w", plugins.ErrUnavailable)
	}
	return nil
}

// drop removes the attempt's account.
func (k *claim) drop(ctx context.Context, c *client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if k.super != nil {
		return k.dropSuper(ctx)
	}
	_, err := c.do(ctx, call{method: "DELETE", db: systemDB, path: "/_api/user/" + esc(k.account), once: true})
	// Gone: a successor has removed it, and with it the right to ask.
	if statused(err, 401, 404) {
		return nil
	}
	return err
}

// release gives up the claim of the session, if it has one. An account that cannot be removed now is removed by
// the next that claims.
func (s *session) release() error {
	k := s.holds
	if k == nil {
		return nil
	}
	err := k.drop(context.Background(), s.c)
	s.holds, s.c = nil, s.main
	if err != nil {
		return fmt.Errorf("%s: remove the account of this attempt: %w", s.target, err)
	}
	return nil
}

// verdict says of a refusal whether a successor has taken over.
func (s *session) verdict(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return ended(ctx, err)
	}
	if s.holds == nil || !errors.Is(err, plugins.ErrAuth) {
		return err
	}
	g, gerr := s.guard(ctx, s.main)
	if gerr == nil && g.Rev == s.holds.rev {
		return err
	}
	return fmt.Errorf("%w: %w", s.holds.fenced(g), err)
}

// finish gives up the claim at the end of what needed it, so that no account of an attempt stays behind.
func (s *session) finish(ctx context.Context, err error) error {
	return errors.Join(s.verdict(ctx, err), s.release())
}

// mine says whether the attempt still holds the server, for requests that must be sent under another account.
func (s *session) mine(ctx context.Context) error {
	g, err := s.guard(ctx, s.c)
	if err != nil {
		return s.verdict(ctx, err)
	}
	if g.Rev != s.holds.rev {
		return s.holds.fenced(g)
	}
	return nil
}

// Quiet ends what earlier attempts left running: their accounts go, and with them whatever they still send.
func (s *session) Quiet(ctx context.Context, run plugins.Run) error {
	if err := s.claim(ctx, run); err != nil {
		return err
	}
	if err := s.undoReadOnly(ctx, run); err != nil {
		return err
	}
	return s.release()
}

// accountNames are the names without the product's own.
func accountNames(m map[string][]byte) []string {
	return slices.DeleteFunc(sortedKeys(m), func(n string) bool { return strings.HasPrefix(n, ownAccounts) })
}
