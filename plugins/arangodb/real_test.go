//go:build arangodb

package arangodb_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/csobackup/cso_backupnrestore/plugins"
	"github.com/csobackup/cso_backupnrestore/plugins/plugintest"
)

// TestConformanceReal runs the whole suite on a real ArangoDB: `make test-arangodb ENDPOINT=…`. All content
// of that server, accounts but for the one in use included, is overwritten.
func TestConformanceReal(t *testing.T) {
	on := plugins.Target{Component: "arangodb", Instance: "central"}
	options := map[string]string{"timeout": "1m"}
	for option, env := range map[string]string{"user": "CSO_TEST_ARANGODB_USER", "password_file": "CSO_TEST_ARANGODB_PASSWORD_FILE", "jwt_secret_file": "CSO_TEST_ARANGODB_JWT_FILE"} {
		if v := os.Getenv(env); v != "" {
			options[option] = v
		}
	}
	for i, e := range strings.FieldsFunc(os.Getenv("CSO_TEST_ARANGODB_ENDPOINT"), func(r rune) bool { return r == ',' }) {
		on.Members = append(on.Members, plugins.Member{Name: fmt.Sprintf("arangodb-%d", i+1), VM: "vm", Address: e, Options: options})
	}
	if len(on.Members) == 0 {
		t.Fatal("no server: make test-arangodb ENDPOINT=http://HOST:8529[,http://HOST2:8529] [PASSWORD_FILE=…]")
	}
	a := foreign(t, on)
	var v struct{ Server, Version, License string }
	a.get("_system", "/_api/version", &v)
	a.close()
	plugintest.Run(t, harness(on, nil, fmt.Sprintf("ArangoDB %s (%s) at %s", v.Version, v.License, on.Members[0].Address)))
}
