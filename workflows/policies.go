package workflows

import enumspb "go.temporal.io/api/enums/v1"

// A scheduled run that is cancelled asks its child to stop and waits for it.
const (
	parentCloseCancel = enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL
	reuseDuplicate    = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
)
