package cassandra

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csobackup/cso_backupnrestore/test/lab/engine"
	"github.com/csobackup/cso_backupnrestore/test/lab/maven"
)

const defaultVersion = "5.0.9"

// Versions are the releases that the lab starts, the default first.
func Versions() []string { return []string{defaultVersion, "4.1.10", "4.0.19"} }

// jolokia is an agent that offers JMX over HTTP.
var jolokia = maven.Set{Name: "jolokia-2.5.0", Title: "Jolokia 2.5.0",
	Artifacts: []maven.Artifact{{Group: "org.jolokia", Name: "jolokia-agent-jvm", Version: "2.5.0", Classifier: "javaagent"}}}

func set(version string) (maven.Set, error) {
	for _, v := range Versions() {
		if v == version {
			return maven.Set{Name: "cassandra-" + v, Title: "Cassandra " + v,
				Artifacts: []maven.Artifact{{Group: "org.apache.cassandra", Name: "cassandra-all", Version: v}}}, nil
		}
	}
	return maven.Set{}, fmt.Errorf("no Cassandra %q here: the lab has %s", version, strings.Join(Versions(), ", "))
}

// tokens give every node of a ring eight ranges; rings of other instances than
// central have other tokens, so that data moves between differing rings.
const tokensPerNode = 8

func tokens(node, nodes int, instance string) string {
	step := new(big.Int).Div(new(big.Int).Lsh(big.NewInt(1), 64), big.NewInt(int64(tokensPerNode*nodes)))
	var ts []string
	for k := node; k < tokensPerNode*nodes; k += nodes {
		t := new(big.Int).Mul(step, big.NewInt(int64(k)))
		t.Add(t, new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 63)))
		if instance != "central" {
			t.Add(t, big.NewInt(123_456_789_123+int64(len(instance))))
		}
		ts = append(ts, t.String())
	}
	return strings.Join(ts, ",")
}

// timeouts are the waits of a node for the others, of two seconds or five by default: on two busy cores a
// statement fails then that only had to wait for its turn.
var timeouts = []string{"read_request", "range_request", "write_request", "counter_write_request", "cas_contention", "request"}

const patience = 20 * time.Second

// configure writes cassandra.yaml, logback.xml and nodetool.
func (e *Engine) configure(m engine.Member, node int, members []engine.Member) error {
	var seeds []string
	for _, o := range members {
		seeds = append(seeds, fmt.Sprintf("%s:%d", o.Options["host"], o.Ports["storage"]))
	}
	yaml := fmt.Sprintf(`cluster_name: lab-%s
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider: [{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "%s"}]}]
listen_address: %s
rpc_address: %[3]s
storage_port: %d
native_transport_port: %d
num_tokens: %d
initial_token: %s
auto_bootstrap: false
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
disk_failure_policy: stop
commit_failure_policy: stop
cdc_enabled: true
`, m.Instance, strings.Join(seeds, ","), m.Options["host"], m.Ports["storage"], m.Ports["cql"], tokensPerNode, tokens(node, len(members), m.Instance))
	// Every switch of a feature that is off by default; the names changed in 4.1.
	if strings.HasPrefix(e.version, "4.0.") {
		for _, what := range timeouts {
			yaml += fmt.Sprintf("%s_timeout_in_ms: %d\n", what, patience.Milliseconds())
		}
		yaml += "hints_flush_period_in_ms: 1000\ncommitlog_segment_size_in_mb: 16\nenable_user_defined_functions: true\nenable_materialized_views: true\nenable_sasi_indexes: true\n"
	} else {
		for _, what := range timeouts {
			yaml += fmt.Sprintf("%s_timeout: %dms\n", what, patience.Milliseconds())
		}
		yaml += "hints_flush_period: 1000ms\ncommitlog_segment_size: 16MiB\nuser_defined_functions_enabled: true\nmaterialized_views_enabled: true\nsasi_indexes_enabled: true\ncdc_block_writes: false\n"
	}
	if strings.HasPrefix(e.version, "5.") {
		yaml += "dynamic_data_masking_enabled: true\nuuid_sstable_identifiers_enabled: true\nstorage_compatibility_mode: NONE\n"
	}
	switch {
	case !e.has("bench"):
		// An index of vectors takes no more writers at once than there are cores, and one: a
		// replay of the commit log with more fails, and the node does not start.
		// With the usual periodic mode a killed node forgets what it acknowledged in the last ten seconds.
		yaml += "concurrent_writes: 2\ncommitlog_sync: batch\n"
	case strings.HasPrefix(e.version, "4.0."):
		yaml += "commitlog_sync: periodic\ncommitlog_sync_period_in_ms: 10000\n"
	default:
		yaml += "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms\n"
	}
	command, err := e.nodetoolCommand(m)
	if err != nil {
		return err
	}
	script := "#!/bin/sh\n# nodetool of " + m.Name + "; its JMX port is " + fmt.Sprint(m.Ports["jmx"]) + ": nodetool -p " + fmt.Sprint(m.Ports["jmx"]) + " status\nexec"
	for _, a := range command {
		script += " '" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	script += ` "$@"` + "\n"
	const quiet = `<configuration><root level="OFF"/></configuration>`
	const console = `<configuration><appender name="C" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%-5level %date{HH:mm:ss.SSS} [%thread] %F:%L - %msg%n</pattern></encoder></appender><root level="INFO"><appender-ref ref="C"/></root></configuration>`
	return errors.Join(
		os.WriteFile(filepath.Join(m.Dir, "conf", "cassandra.yaml"), []byte(yaml), 0o600),
		os.WriteFile(filepath.Join(m.Dir, "conf", "logback.xml"), []byte(console), 0o600),
		os.WriteFile(filepath.Join(m.Dir, "conf", "logback-tools.xml"), []byte(quiet), 0o600),
		os.WriteFile(m.Options["nodetool"], []byte(script), 0o700))
}

// opens5 are what 5.0 needs on JDK 17; opens4 are what 4.x needs besides.
var (
	opens5 = []string{"--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED",
		"--add-opens", "java.base/java.io=ALL-UNNAMED", "--add-opens", "java.base/java.nio=ALL-UNNAMED",
		"--add-exports", "java.base/jdk.internal.misc=ALL-UNNAMED", "--add-exports", "java.rmi/sun.rmi.registry=ALL-UNNAMED",
		"--add-exports", "java.rmi/sun.rmi.server=ALL-UNNAMED", "--add-exports", "java.management.rmi/com.sun.jmx.remote.internal.rmi=ALL-UNNAMED",
		"-Djava.security.manager=allow"}
	opens4 = []string{"--add-exports", "java.sql/java.sql=ALL-UNNAMED", "--add-exports", "java.base/java.lang.ref=ALL-UNNAMED",
		"--add-exports", "jdk.unsupported/sun.misc=ALL-UNNAMED", "--add-exports", "jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED",
		"--add-exports", "jdk.attach/sun.tools.attach=ALL-UNNAMED", "--add-opens", "java.base/java.lang.module=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.loader=ALL-UNNAMED", "--add-opens", "java.base/jdk.internal.reflect=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.math=ALL-UNNAMED", "--add-opens", "java.base/jdk.internal.module=ALL-UNNAMED",
		"--add-opens", "java.base/jdk.internal.util.jar=ALL-UNNAMED", "--add-opens", "jdk.management/com.sun.management.internal=ALL-UNNAMED",
		"--add-opens", "java.base/java.lang.reflect=ALL-UNNAMED", "--add-opens", "jdk.compiler/com.sun.tools.javac=ALL-UNNAMED",
		"--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.util=ALL-UNNAMED",
		"--add-opens", "java.base/java.util.concurrent=ALL-UNNAMED", "--add-opens", "java.base/java.util.concurrent.atomic=ALL-UNNAMED",
		"--add-opens", "java.base/java.nio.charset=ALL-UNNAMED"}
)

// lean makes a Java server start in half the CPU time on a small machine.
// Benchmarks must not use it.
var lean = []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

func (e *Engine) serverCommand(m engine.Member) ([]string, error) {
	s, err := set(e.version)
	if err != nil {
		return nil, err
	}
	dir, err := maven.Dir(s)
	if err != nil {
		return nil, err
	}
	jamm, err := filepath.Glob(filepath.Join(dir, "lib", "jamm-*.jar"))
	if err != nil || len(jamm) != 1 {
		return nil, fmt.Errorf("find the memory meter in %s: %d files, %w; remove the folder to download it again", dir, len(jamm), err)
	}
	argv := append([]string{maven.Tool("java")}, opens5...)
	if strings.HasPrefix(e.version, "4.") {
		argv = append(argv, opens4...)
	}
	heap := "320m"
	if e.has("bench") {
		heap = "1g"
	} else {
		argv = append(argv, lean...)
	}
	if e.has("jolokia") {
		agent, err := maven.Dir(jolokia)
		if err != nil {
			return nil, err
		}
		argv = append(argv, fmt.Sprintf("-javaagent:%s/lib/jolokia-agent-jvm-2.5.0-javaagent.jar=port=%d,host=127.0.0.1", agent, m.Ports["jolokia"]))
	}
	return append(argv,
		"-javaagent:"+jamm[0],
		"-Xms"+heap, "-Xmx"+heap, "-Xss512k", "-XX:+ExitOnOutOfMemoryError", "-XX:ErrorFile="+filepath.Join(m.Dir, "java-crash.log"),
		"-Dcassandra.config=file://"+filepath.Join(m.Dir, "conf", "cassandra.yaml"),
		"-Dcassandra.storagedir="+m.Dir,
		"-Djava.io.tmpdir="+filepath.Join(m.Dir, "tmp"), // a killed server leaves unpacked libraries there
		"-Dlogback.configurationFile=file:"+filepath.Join(m.Dir, "conf", "logback.xml"),
		fmt.Sprintf("-Dcassandra.jmx.local.port=%d", m.Ports["jmx"]),
		"-Dcom.sun.management.jmxremote.authenticate=false",
		"-Dcassandra-foreground=yes",
		// Nobody else is on this ring, so nothing has to be waited for.
		"-Dcassandra.ring_delay_ms=2000",
		"-Dcassandra.skip_wait_for_gossip_to_settle=0",
		"-Dcassandra.superuser_setup_delay_ms=0",
		"-Dcassandra.auth_bcrypt_gensalt_log2_rounds=4", // log-ins shall not cost the lab's two cores
		"-cp", filepath.Join(dir, "lib", "*"), "org.apache.cassandra.service.CassandraDaemon"), nil
}

func (e *Engine) nodetoolCommand(m engine.Member) ([]string, error) {
	s, err := set(e.version)
	if err != nil {
		return nil, err
	}
	dir, err := maven.Dir(s)
	if err != nil {
		return nil, err
	}
	argv := append([]string{maven.Tool("java")}, lean...)
	return append(argv, "-Xmx128m",
		"--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens", "java.base/jdk.internal.ref=ALL-UNNAMED",
		"-Duser.home="+filepath.Join(m.Dir, "conf"), // nodetool writes a history there
		"-Dcassandra.storagedir="+filepath.Join(m.Dir, "conf"),
		"-Dlogback.configurationFile=file:"+filepath.Join(m.Dir, "conf", "logback-tools.xml"),
		"-cp", filepath.Join(dir, "lib", "*"), "org.apache.cassandra.tools.NodeTool"), nil
}
