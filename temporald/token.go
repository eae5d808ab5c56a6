package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/authorization"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// tokenSigner signs task tokens for the role that receives them. Temporal's tokens are plain protobuf of IDs that any
// worker of the same run knows, so without a signature one VM's worker could answer for another's.
type tokenSigner struct{ key []byte }

// tokenField is the protobuf field that carries the signature at the token's end. The server ignores fields it does
// not know, so a signed token needs no unwrapping.
const tokenField = 19001

// sign returns token with its signature for role; no token stays no token.
func (s tokenSigner) sign(role string, token []byte) []byte {
	if len(token) == 0 {
		return token
	}
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%d:%s", len(role), role)
	mac.Write(token)
	return protowire.AppendBytes(protowire.AppendTag(slices.Clone(token), tokenField, protowire.BytesType), mac.Sum(nil))
}

// verify reports whether token is what sign returned for role.
func (s tokenSigner) verify(role string, token []byte) bool {
	n := len(token) - protowire.SizeTag(tokenField) - protowire.SizeBytes(sha256.Size)
	return n > 0 && hmac.Equal(s.sign(role, token[:n]), token)
}

// intercept runs after the authorizer: it refuses new runs when the disk is nearly full, and signs the task tokens of
// every response that can carry one, eager activities included.
func (z *authorizer) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := z.space.check(req); err != nil {
		return nil, err
	}
	resp, err := handle(ctx, req)
	claims, _ := ctx.Value(authorization.MappedClaims).(*authorization.Claims)
	if isInternal(claims) {
		return resp, err
	}
	role := identify(claims).role
	switch r := resp.(type) {
	case *workflowservice.PollActivityTaskQueueResponse:
		if r != nil {
			r.TaskToken = z.tokens.sign(role, r.TaskToken)
		}
	case *workflowservice.PollWorkflowTaskQueueResponse:
		if r != nil {
			r.TaskToken = z.tokens.sign(role, r.TaskToken)
		}
	case *workflowservice.RespondWorkflowTaskCompletedResponse:
		if r != nil {
			if r.WorkflowTask != nil {
				r.WorkflowTask.TaskToken = z.tokens.sign(role, r.WorkflowTask.TaskToken)
			}
			for _, a := range r.ActivityTasks {
				a.TaskToken = z.tokens.sign(role, a.TaskToken)
			}
		}
	}
	return resp, err
}
