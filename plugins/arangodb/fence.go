package arangodb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/csobackup/cso_backupnrestore/plugins"
)

// A fence is the server's read-only mode. It refuses the writes of everybody but the super user, who is known by a
// token signed with the server's JWT secret: without that secret a session is no Fencer. An account could not write
// through it, so that an attempt which works behind a fence uses the super user's tokens instead. Those
// cannot be taken away; they expire. One is made only after the guard was seen to name this attempt,
// and is valid for tokenLife from the moment before; who claims after such an attempt waits
// until its last token has expired.
const (
	fenceFor  = 15 * time.Minute // prolonged while a restore works
	tokenLife = 10 * time.Second
	clockSkew = 5 * time.Second // the product's limit between VMs
)

// superSingle and superCluster are sessions that have the server's JWT secret.
type superSingle struct {
	singleSession
	fencer
}

type superCluster struct {
	clusterSession
	fencer
}

type fencer struct{ of *session }

// Fence makes the server read-only for all others. It ends with Unfence, or once its lease has run out or its run
// is over and anybody of a later run looks: a server cannot do so by itself.
func (f fencer) Fence(ctx context.Context, run plugins.Run) error {
	s := f.of
	if err := s.undoReadOnly(ctx, run); err != nil {
		return err
	}
	if err := s.claim(ctx, run); err != nil { // ends what earlier attempts left running
		return err
	}
	if err := s.release(); err != nil {
		return err
	}
	var all []server
	var err error
	if s.cluster {
		if all, err = s.servers(ctx); err != nil {
			return ended(ctx, err)
		}
	}
	if err := s.setLease(ctx, &lease{Key: "readonly", Epoch: run.Epoch, Why: forFence, Until: time.Now().Add(fenceFor)}); err != nil {
		return ended(ctx, err)
	}
	if err = s.everyMode(ctx, "readonly", all); err == nil {
		err = s.drain(ctx)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return fmt.Errorf("%s: fence: %w", s.target, errors.Join(err, s.thaw(undo)))
	}
	return nil
}

// Unfence lets writes in again.
func (f fencer) Unfence(ctx context.Context, run plugins.Run) error {
	s := f.of
	l, err := s.readLease(ctx)
	if err != nil || l == nil {
		return ended(ctx, err)
	}
	if l.Epoch > run.Epoch {
		return fmt.Errorf("%s: the fence is that of epoch %d: %w", s.target, l.Epoch, plugins.ErrFenced)
	}
	return ended(ctx, s.thaw(ctx))
}

// superToken is the right to write of an attempt behind a fence.
type superToken struct {
	mu   sync.Mutex
	jwt  string
	made time.Time
}

// underFence finds out whether the attempt must write as the super user.
func (k *claim) underFence(ctx context.Context) error {
	if k.s.cred.secret == "" {
		return nil
	}
	l, err := k.s.readLease(ctx)
	if err == nil && l != nil && l.Why == forFence && l.Epoch == k.run.Epoch {
		k.super = &superToken{}
	}
	return err
}

func (k *claim) superClient() *client {
	c := newClient(k.s.tr, k.s.addrs, credentials{}, k.s.timeout)
	c.now.Store(k.s.main.now.Load())
	c.token = k.token
	return c
}

// token is a valid token; it is made anew in time, if the attempt still holds the server.
func (k *claim) token(ctx context.Context) (string, error) {
	k.super.mu.Lock()
	defer k.super.mu.Unlock()
	now := time.Now() // before the guard is read: an attempt that sleeps meanwhile makes a token that has expired
	if k.super.jwt != "" && now.Sub(k.super.made) < tokenLife/2 {
		return k.super.jwt, nil
	}
	g, err := k.s.guard(ctx, k.s.main)
	if err != nil {
		return "", err
	}
	if g.Rev != k.rev {
		return "", k.fenced(g)
	}
	k.super.jwt, k.super.made = superJWT(k.s.cred.secret, fmt.Sprintf(`,"exp":%d`, now.Add(tokenLife).Unix())), now
	return k.super.jwt, k.s.prolong(ctx, k.run)
}

// prolong keeps the fence of this run up while its restore works.
func (s *session) prolong(ctx context.Context, run plugins.Run) error {
	l, err := s.readLease(ctx)
	if err != nil || l == nil || l.Why != forFence || l.Epoch != run.Epoch || time.Until(l.Until) > fenceFor/2 {
		return err
	}
	l.Until = time.Now().Add(fenceFor)
	return s.writeLease(ctx, l)
}

// dropSuper says in the guard that no token is in use any more.
func (k *claim) dropSuper(ctx context.Context) error {
	mine := guard{Key: "claim", Epoch: k.run.Epoch, Rank: rank(k.run.Operation), Attempt: k.run.Attempt}
	err := k.put(ctx, call{method: "PUT", db: systemDB, path: guardPath, body: mine, header: map[string]string{"If-Match": `"` + k.rev + `"`}})
	if statused(err, 404, 412, 409) { // a successor holds the server, and has waited
		return nil
	}
	return err
}
