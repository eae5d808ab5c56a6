// Package plugintest is the conformance suite that every plugin passes, after
// the model of restic's backend test suite: the plugin's own test describes
// its servers in a [Harness] and calls [Run]. It also holds [Memory], a store
// in memory that fails on demand.
package plugintest
