package worker

import (
	"context"
	"encoding/json"
	"fmt"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
)

// maxPayload is the largest result of an activity, in bytes. A larger one is
// an error of the program: lists of pieces belong into the store.
const maxPayload = 64 << 10

// sizes refuses large results as not retryable; the engine's own refusal was
// measured to run the whole activity again on each attempt.
type sizes struct {
	interceptor.WorkerInterceptorBase
}

func (sizes) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &sized{interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type sized struct {
	interceptor.ActivityInboundInterceptorBase
}

func (s *sized) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := s.Next.ExecuteActivity(ctx, in)
	if err != nil || out == nil {
		return out, err
	}
	b, err := json.Marshal(out)
	if err != nil {
		return out, nil // the engine's converter says what is wrong
	}
	if len(b) > maxPayload {
		return nil, temporal.NewNonRetryableApplicationError(fmt.Sprintf("result of %d bytes is over the limit of %d: please report this", len(b), maxPayload), "failed", nil)
	}
	return out, nil
}
