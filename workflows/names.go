package workflows

// Task queues. A VM's worker polls VMQueue (transfers) and CtlQueue (ping,
// health, hooks, fence; own slots); the control worker polls the other two.
const (
	ControlQueue = "cso-control"
	LeaseQueue   = "cso-lease"
)

// VMQueue is the queue of transfers on a VM.
func VMQueue(vm string) string { return "cso-vm-" + vm }

// CtlQueue is the queue of short control activities on a VM.
func CtlQueue(vm string) string { return "cso-vm-" + vm + "-ctl" }

// Workflow IDs. Every estate-changing run has ExclusiveID: that elects, the fence protects.
const (
	ExclusiveID    = "cso/exclusive"
	HealthID       = "cso/healthcheck"
	PlanPrefix     = "cso/plan/"     // + random
	VerifyPrefix   = "cso/verify/"   // + NAME/TIMESTAMP
	SchedulePrefix = "cso/schedule/" // + schedule name; Temporal appends the time
)

// Workflow type names, as registered and as shown in the Web UI.
const (
	BackupType    = "Backup"
	ScheduledType = "ScheduledBackup"
	RestoreType   = "Restore"
	PlanType      = "PlanRestore"
	HealthType    = "HealthCheck"
	VerifyType    = "Verify"
	ResolveType   = "Resolve"
	ReindexType   = "Reindex"
)

// ProgressQuery is the query every operation answers with a Progress.
const ProgressQuery = "progress"

// Search attributes, for people who look at the Web UI; no decision reads them.
const (
	AttrOperation   = "CsoOperation"
	AttrBackup      = "CsoBackup"
	AttrPhase       = "CsoPhase"
	AttrComponents  = "CsoComponents"
	AttrMaintenance = "CsoMaintenance"
	AttrOutcome     = "CsoOutcome"
	AttrBytes       = "CsoBytes"
)
