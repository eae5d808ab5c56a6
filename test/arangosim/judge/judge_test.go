package main

import (
	"os"
	"strings"
	"testing"
)

// TestVendorSuiteSimulated runs the vendor's driver tests, without the slow
// ones, against the simulator as the newest version and as the one that "3.12"
// stands for: each test that passed before must pass.
func TestVendorSuiteSimulated(t *testing.T) {
	for _, version := range []string{mainVersion, "3.12"} {
		t.Run(version, func(t *testing.T) {
			var out strings.Builder
			err := judge(t.Context(), &out, "../suite", t.TempDir(), version, true, "")
			t.Log("\n" + out.String())
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestVerdict: leaves count, not parents; a skip inside is a failure.
func TestVerdict(t *testing.T) {
	both := test{name: "Test_A", modes: []string{"single", "cluster"}}
	for _, c := range []struct {
		name, single, cluster string
		want                  verdict
	}{
		{"all pass", "--- PASS: Test_A/x (0.00s)", "--- PASS: Test_A/x (0.00s)", passed},
		{"a parent's pass hides a skip", "--- PASS: Test_A (0.00s)\n--- PASS: Test_A/x (0.00s)\n--- SKIP: Test_A/y (0.00s)", "--- PASS: Test_A/x (0.00s)", failed},
		{"skipped for the mode", "--- PASS: Test_A/x/p (0.00s)\n--- SKIP: Test_A/x/q (0.00s)", "--- PASS: Test_A/x/p (0.00s)\n--- PASS: Test_A/x/q (0.00s)", passed},
		{"skipped whole in one mode", "--- SKIP: Test_A/x (0.00s)", "--- PASS: Test_A/x (0.00s)", skipped},
		{"all skipped", "--- PASS: Test_A (0.00s)\n--- SKIP: Test_A/x (0.00s)", "--- SKIP: Test_A/x (0.00s)", skipped},
		{"no result", "", "--- PASS: Test_A/x (0.00s)", failed},
		{"another test's result", "--- PASS: Test_AB/x (0.00s)", "--- PASS: Test_A/x (0.00s)", failed},
		{"a parent fails by itself", "--- FAIL: Test_A (0.00s)\n--- PASS: Test_A/x (0.00s)", "--- PASS: Test_A/x (0.00s)", failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := verdictOf(both, map[string]map[string]string{"single": leaves(c.single), "cluster": leaves(c.cluster)})
			if got != c.want {
				t.Errorf("verdict %d (%s), want %d", got, why, c.want)
			}
		})
	}
}

// TestReportFails: a test that is not called a miss must pass, and a miss must not.
func TestReportFails(t *testing.T) {
	pass := map[string]map[string]string{"single": {"Test_A": "PASS"}}
	fail := map[string]map[string]string{"single": {"Test_A": "FAIL"}}
	a := test{name: "Test_A", modes: []string{"single"}}
	known := a
	known.miss = "because"
	for _, c := range []struct {
		t       test
		results map[string]map[string]string
		good    bool
	}{{a, pass, true}, {a, fail, false}, {known, fail, true}, {known, pass, false}} {
		var out strings.Builder
		if err := report(&out, []test{c.t}, c.results, false); (err == nil) != c.good {
			t.Errorf("%+v with %v: %v", c.t, c.results, err)
		}
	}
}

func TestListHolds128(t *testing.T) {
	tests, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	misses := 0
	for _, x := range tests {
		if x.miss != "" {
			misses++
		}
	}
	if len(tests) != 128 || len(tests)-misses < goal {
		t.Errorf("%d tests, %d misses", len(tests), misses)
	}
}

func TestFoxxBundle(t *testing.T) {
	path := t.TempDir() + "/resources/bundle.zip"
	if err := foxxBundle(path); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), "PK") {
		t.Errorf("%q, %v", b, err)
	}
}
