// Package workflows holds the operations as Temporal workflows:
// deterministic code only, no I/O, no clock but the workflow's. A behaviour
// change after a history has landed in testdata/history goes through
// workflow.GetVersion.
package workflows
