package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/server"
)

const password = "simulated"

// session holds one build of the suite.
type session struct {
	dir     string // scratch: the binary, the simulators' files
	log     string // where the suite's output is kept, empty for nowhere
	version string // to simulate
}

func (s session) binary() string { return filepath.Join(s.dir, "suite.test") }

// build compiles the suite from the module cache, as the nested module's go.sum pins it.
func (s session) build(ctx context.Context, module string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.binary(), "github.com/arangodb/go-driver/v2/tests")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the vendor's suite in %s: %w: %s", module, err, bytes.TrimSpace(out))
	}
	return foxxBundle(foxxPath)
}

// run runs the tests in the modes that they run in and answers the leaves' results by mode.
func (s session) run(ctx context.Context, tests []test) (map[string]map[string]string, error) {
	results := map[string]map[string]string{}
	for _, mode := range []string{"single", "cluster"} {
		var names []string
		for _, t := range tests {
			if t.in(mode) {
				names = append(names, t.name)
			}
		}
		if len(names) == 0 {
			continue
		}
		output, err := s.runMode(ctx, mode, names)
		if err != nil {
			return nil, err
		}
		results[mode] = leaves(output)
	}
	return results, nil
}

func (s session) runMode(ctx context.Context, mode string, names []string) (string, error) {
	sim, err := server.Start(server.Config{Dir: filepath.Join(s.dir, mode), Mode: mode, Version: s.version, License: "enterprise", Auth: true, Password: password})
	if err != nil {
		return "", fmt.Errorf("start the simulator: %w", err)
	}
	defer sim.Close()
	cmd := exec.CommandContext(ctx, s.binary(), "-test.v", "-test.count=1", "-test.parallel=8", "-test.timeout=20m",
		"-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = s.dir
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = environment(mode, strings.Join(sim.Endpoints(), ","))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err = cmd.Run()
	if s.log != "" {
		if err := os.WriteFile(filepath.Join(s.log, mode+".log"), output.Bytes(), 0o600); err != nil {
			return "", fmt.Errorf("keep the suite's output: %w", err)
		}
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && !errors.As(err, &exit): // a failed test is no error here
		return "", fmt.Errorf("run the vendor's suite: %w", err)
	}
	return output.String(), nil
}

// environment is this process's without the suite's own variables, plus those that choose the mode.
func environment(mode, endpoints string) []string {
	var out []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TEST_") && !strings.HasPrefix(v, "ENABLE_") {
			out = append(out, v)
		}
	}
	return append(out, "TEST_ENDPOINTS="+endpoints, "TEST_MODE="+mode, "TEST_AUTHENTICATION=basic:root:"+password, "ENABLE_VECTOR_INDEX=true")
}

// foxxPath is where the suite looks for the service that it installs (foxx_test.go); without it that test skips.
const foxxPath = "/tmp/resources/itzpapalotl-v1.2.0.zip"

// foxxBundle puts a service of our own there, unless there is one.
func foxxBundle(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range [][2]string{
		{"manifest.json", `{"name":"itzpapalotl","version":"1.2.0","main":"index.js","engines":{"arangodb":"^3.0.0"}}`},
		{"README.md", "# itzpapalotl\n"},
		{"index.js", "'use strict';\n"},
	} {
		w, err := z.Create(f[0])
		if err != nil {
			return fmt.Errorf("pack the service: %w", err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			return fmt.Errorf("pack the service: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("pack the service: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("the suite's service: %w", err)
	}
	// Another run may be writing the same file: it appears whole or not at all.
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(part, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("the suite's service: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("the suite's service: %w", err)
	}
	return nil
}
