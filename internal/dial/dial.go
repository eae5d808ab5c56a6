// Package dial connects to Temporal in one of the product's roles: to the
// embedded cso-temporald with the role's certificate, or, when the standard
// profile names a server, to that one exactly as the profile says.
package dial

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	tlog "go.temporal.io/sdk/log"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

// Namespace is the namespace of the embedded server.
const Namespace = "cso"

// DefaultAddress is where cso-temporald listens.
const DefaultAddress = "127.0.0.1:7233"

// Roles are the names of client certificates; a VM's is WorkerRole.
const (
	Operator = "operator"
	Control  = "control"
)

// WorkerRole is the certificate name of a VM's worker.
func WorkerRole(vm string) string { return "worker-" + vm }

// Options resolves address, namespace and TLS for a role. External is true
// when a standard profile (TEMPORAL_ADDRESS, TEMPORAL_CONFIG_FILE,
// TEMPORAL_PROFILE or the default profile file) names the server. A Temporal
// that gives each role a certificate of its own is named by profiles called
// cso-operator, cso-control and cso-worker-<vm> in that file; a role without
// one uses the profile that the standard chooses.
func Options(pkiDir, role string, log *slog.Logger) (o client.Options, external bool, err error) {
	if profileGiven() {
		if o, err = profile(role); err != nil {
			return o, true, fmt.Errorf("temporal profile: %w: correct it, or unset TEMPORAL_* to use the embedded server", err)
		}
		external = o.HostPort != ""
	}
	o.Logger = tlog.NewStructuredLogger(log)
	if external {
		return o, true, nil
	}
	o.HostPort, o.Namespace = DefaultAddress, Namespace
	if a := os.Getenv("CSO_BACKUP_TEMPORAL"); a != "" {
		o.HostPort = a
	}
	var conf *tls.Config
	if conf, err = pki.ClientTLS(pkiDir, role); err != nil {
		return o, false, fmt.Errorf("certificate of role %s: %w", role, err)
	}
	o.ConnectionOptions.TLS = conf
	return o, false, nil
}

// profile loads the role's own profile, or the one that the standard chooses.
// An operator who names a profile or an address in the environment means that one.
func profile(role string) (client.Options, error) {
	if os.Getenv("TEMPORAL_PROFILE") == "" && os.Getenv("TEMPORAL_ADDRESS") == "" {
		all, err := envconfig.LoadClientConfig(envconfig.LoadClientConfigOptions{})
		if err != nil {
			return client.Options{}, err
		}
		if name := "cso-" + role; all.Profiles[name] != nil {
			return envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{ConfigFileProfile: name})
		}
	}
	return envconfig.LoadDefaultClientOptions()
}

func profileGiven() bool {
	for _, k := range []string{"TEMPORAL_ADDRESS", "TEMPORAL_CONFIG_FILE", "TEMPORAL_PROFILE"} {
		if os.Getenv(k) != "" {
			return true
		}
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, "temporalio", "temporal.toml"))
	return err == nil
}

// Client connects lazily: the first call reaches out.
func Client(pkiDir, role string, log *slog.Logger) (client.Client, bool, error) {
	o, external, err := Options(pkiDir, role, log)
	if err != nil {
		return nil, external, err
	}
	c, err := client.NewLazyClient(o)
	return c, external, err
}
