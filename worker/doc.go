// Package worker is the runtime of the VM agent: it connects to the engine in
// the roles of its VM and polls the VM's own queues; on the installer-vm also
// the control and lease queues, and it runs the reaper of the maintenance
// lease. It is the only importer of plugins/all.
package worker
