package schedule

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/csobackup/cso_backupnrestore/workflows"
)

// CatchUp is how late a run may start that fell due while Temporal was away; a later one counts as missed.
const CatchUp = time.Hour

// memoKey holds, in the memo of the started workflow, the hash of the
// definition. Temporal compiles cron strings, so the definition itself could
// not be compared; and it must be compared, because an update makes Temporal
// forget the runs that are due for catch-up.
const memoKey = "CsoSchedule"

// Changes is what Reconcile did, by schedule name.
type Changes struct {
	Created   []string `json:"created,omitempty"`
	Updated   []string `json:"updated,omitempty"`
	Deleted   []string `json:"deleted,omitempty"`
	Unchanged []string `json:"unchanged,omitempty"`
}

// ID is the ID of the Temporal schedule of a name.
func ID(name string) string { return workflows.SchedulePrefix + name }

// Reconcile makes Temporal's schedules equal to the files in dir, in the time
// zone given. Only schedules whose ID has our prefix are touched. It goes on
// after a failure with one of them, and returns all failures joined; a schedule whose file
// cannot be read is left as it is.
func Reconcile(ctx context.Context, c client.Client, dir string, zone *time.Location) (Changes, error) {
	var done Changes
	all, err := names(dir)
	if err != nil {
		return done, err
	}
	entries, err := List(dir)
	errs := []error{err}
	for _, e := range entries {
		into, err := ensure(ctx, c, e, zone)
		if err != nil {
			errs = append(errs, fmt.Errorf("schedule %s: %w", e.Name, err))
			continue
		}
		switch into {
		case created:
			done.Created = append(done.Created, e.Name)
		case updated:
			done.Updated = append(done.Updated, e.Name)
		case unchanged:
			done.Unchanged = append(done.Unchanged, e.Name)
		}
	}
	it, err := c.ScheduleClient().List(ctx, client.ScheduleListOptions{PageSize: 100})
	if err != nil {
		return done, errors.Join(append(errs, fmt.Errorf("list schedules: %w", err))...)
	}
	for it.HasNext() {
		s, err := it.Next()
		if err != nil {
			errs = append(errs, fmt.Errorf("list schedules: %w", err))
			break
		}
		n, ours := strings.CutPrefix(s.ID, workflows.SchedulePrefix)
		if !ours || slices.Contains(all, n) {
			continue
		}
		err = c.ScheduleClient().GetHandle(ctx, s.ID).Delete(ctx)
		if gone := (*serviceerror.NotFound)(nil); err != nil && !errors.As(err, &gone) {
			errs = append(errs, fmt.Errorf("schedule %s has no file: delete it: %w", n, err))
			continue
		}
		done.Deleted = append(done.Deleted, n)
	}
	return done, errors.Join(errs...)
}

type change int

const (
	unchanged change = iota
	created
	updated
)

// ensure makes one Temporal schedule equal to its file.
func ensure(ctx context.Context, c client.Client, e Entry, zone *time.Location) (change, error) {
	want, hash, err := definition(e, zone)
	if err != nil {
		return unchanged, err
	}
	h := c.ScheduleClient().GetHandle(ctx, ID(e.Name))
	d, err := h.Describe(ctx)
	if gone := (*serviceerror.NotFound)(nil); errors.As(err, &gone) {
		_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
			ID: ID(e.Name), Spec: *want.Spec, Action: want.Action, Overlap: want.Policy.Overlap,
			CatchupWindow: want.Policy.CatchupWindow, Paused: e.Paused, Note: want.State.Note,
		})
		if err == nil {
			return created, nil
		}
		if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
			return unchanged, err
		}
		d, err = h.Describe(ctx) // somebody else was faster
	}
	if err != nil {
		return unchanged, err
	}
	if storedHash(d) == hash && d.Schedule.State != nil && d.Schedule.State.Paused == e.Paused {
		return unchanged, nil
	}
	err = h.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		return &client.ScheduleUpdate{Schedule: want}, nil
	}})
	return updated, err
}

// definition is the Temporal schedule of an entry, and its hash.
func definition(e Entry, zone *time.Location) (*client.Schedule, string, error) {
	cron, err := Parse(e.Cron)
	if err != nil {
		return nil, "", err
	}
	in := workflows.BackupInput{Name: e.Name, Maintenance: e.Maintenance, Trigger: "schedule"}
	b, err := json.Marshal([]any{format, cron.Expressions(), zone.String(), in, workflows.ScheduledType, workflows.ControlQueue, CatchUp})
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	mode := "without maintenance"
	if e.Maintenance {
		mode = "with maintenance"
	}
	note := e.Note
	if note == "" {
		note = "kept equal to the schedule file of the installer-vm"
	}
	return &client.Schedule{
		Spec:   &client.ScheduleSpec{CronExpressions: cron.Expressions(), TimeZoneName: zone.String()},
		Policy: &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: CatchUp},
		State:  &client.ScheduleState{Paused: e.Paused, Note: note},
		Action: &client.ScheduleWorkflowAction{
			ID: ID(e.Name), Workflow: workflows.ScheduledType, Args: []any{in}, TaskQueue: workflows.ControlQueue,
			Memo:          map[string]any{memoKey: hash},
			StaticSummary: fmt.Sprintf("scheduled backup %s %s", e.Name, mode),
		},
	}, hash, nil
}

func storedHash(d *client.ScheduleDescription) string {
	a, ok := d.Schedule.Action.(*client.ScheduleWorkflowAction)
	if !ok {
		return ""
	}
	p, ok := a.Memo[memoKey].(*commonpb.Payload)
	if !ok {
		return ""
	}
	var hash string
	if err := converter.GetDefaultDataConverter().FromPayload(p, &hash); err != nil {
		return ""
	}
	return hash
}
