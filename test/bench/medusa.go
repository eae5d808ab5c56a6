package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// jmxPort is the port of host:port.
func jmxPort(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// medusa writes a configuration for the peer that stores in a local directory.
func (e *estate) medusa(_ context.Context, env []string, program string) ([]string, error) {
	address, options, err := e.Target("cassandra-1")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.b.dir, "medusa")
	if err := os.MkdirAll(filepath.Join(dir, "store", "bench"), 0o700); err != nil {
		return nil, err
	}
	yaml, err := os.ReadFile(filepath.Join(filepath.Dir(options["data_dir"]), "conf", "cassandra.yaml"))
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(address, ":")
	ini := fmt.Sprintf(`[cassandra]
config_file = %[1]s/cassandra.yaml
cql_username = %[2]s
cql_password = %[3]s
nodetool_host = 127.0.0.1
nodetool_port = %[4]s
nodetool_executable = %[5]s
use_sudo = False
nodetool_flags =
resolve_ip_addresses = False
check_running = true
[storage]
storage_provider = local
bucket_name = bench
base_path = %[1]s/store
fqdn = %[6]s
use_sudo_for_restore = False
max_backup_age = 0
max_backup_count = 0
concurrent_transfers = 2
[monitoring]
monitoring_provider = None
[logging]
enabled = 0
`, dir, e.value("LAB_CASSANDRA_1_ADMIN_USER"), e.value("LAB_CASSANDRA_1_ADMIN_PASSWORD"), jmxPort(options["jmx"]), options["nodetool"], host)
	text := string(yaml) + "data_file_directories: [\"" + options["data_dir"] + "\"]\n"
	for name, content := range map[string]string{"medusa.ini": ini, "cassandra.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	// Medusa calls nodetool by its name.
	path := filepath.Dir(options["nodetool"]) + ":" + os.Getenv("PATH")
	return append(env, "PATH="+path, "MEDUSA="+program+" --config-file "+filepath.Join(dir, "medusa.ini")), nil
}
