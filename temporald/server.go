package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/rpc/encryption"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/csobackup/cso_backupnrestore/internal/pki"
)

const (
	services  = 5 // frontend, internal-frontend, history, matching, worker: one port each, in this order
	loopback  = "127.0.0.1"
	retention = 90 * 24 * time.Hour
)

// searchAttributes are what lists of runs can be filtered by. Names, never data.
var searchAttributes = map[string]enumspb.IndexedValueType{
	"CsoOperation":   enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"CsoBackup":      enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"CsoPhase":       enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"CsoComponents":  enumspb.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	"CsoMaintenance": enumspb.INDEXED_VALUE_TYPE_BOOL,
	"CsoOutcome":     enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"CsoBytes":       enumspb.INDEXED_VALUE_TYPE_INT,
}

// server is the running pair of Temporal server and Web UI.
type server struct {
	opt      options
	pki      string
	temporal temporal.Server
	ui       *webUI // nil = none
	canary   string // request id that passes the free-space floor
	// level is warn while the server runs. While it starts and stops its parts miss each other, which it reports as
	// dozens of warnings; then only errors are shown.
	level zap.AtomicLevel
}

// start makes what certificates are missing and starts server and Web UI on db.
func start(opt options, db *database, log *slog.Logger) (_ *server, err error) {
	s := &server{opt: opt, pki: filepath.Join(opt.state, "pki"), canary: rand.Text(), level: zap.NewAtomicLevelAt(zap.ErrorLevel)}
	if err := pki.Ensure(s.pki); err != nil {
		return nil, err
	}
	// The server notices a taken port only after it has opened the database, and the Web UI by ending the process.
	if err := s.probePorts(); err != nil {
		return nil, err
	}
	sql := sqlConfig(db.path)
	ns, err := sqliteschema.NewNamespaceConfig("active", namespace, false, searchAttributes)
	if err != nil {
		return nil, fmt.Errorf("describe namespace %s: %w", namespace, err)
	}
	ns.Detail.Config.Retention = durationpb.New(retention)
	if err := sqliteschema.CreateNamespaces(sql, ns); err != nil {
		return nil, fmt.Errorf("create namespace %s: %w; %s", namespace, err, db.moveAside())
	}
	cfg := s.config(sql)
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration of the Temporal server: %w", err)
	}
	options, err := s.options(cfg, db.dir, log)
	if err != nil {
		return nil, err
	}
	if s.temporal, err = temporal.NewServer(options...); err != nil {
		return nil, fmt.Errorf("set up the Temporal server: %w", err)
	}
	if err := s.temporal.Start(); err != nil {
		return nil, fmt.Errorf("start the Temporal server: %w", err)
	}
	s.level.SetLevel(zap.WarnLevel)
	if opt.uiPort != 0 {
		if s.ui, err = startWebUI(s.pki, s.dialAddress(0), opt.uiPort, log); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	return s, nil
}

// bindIP is where service i listens: only the frontend may face the other VMs.
func (s *server) bindIP(i int) string {
	if i == 0 {
		return s.opt.bind
	}
	return loopback
}

// dialAddress is where this process reaches service i.
func (s *server) dialAddress(i int) string {
	ip := s.bindIP(i)
	if net.ParseIP(ip).IsUnspecified() {
		ip = loopback
	}
	return net.JoinHostPort(ip, strconv.Itoa(s.opt.port+i))
}

func (s *server) probePorts() error {
	probe := func(ip string, port int, option string) error {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("port %d is not free: %w; stop what uses it or choose others with %s", port, err, option)
		}
		return l.Close()
	}
	for i := range services {
		if err := probe(s.bindIP(i), s.opt.port+i, "--port (five in a row are needed)"); err != nil {
			return err
		}
	}
	if s.opt.uiPort == 0 {
		return nil
	}
	return probe(loopback, s.opt.uiPort, "--ui-port")
}

// config follows what was measured to work; PublicClient must stay empty, the internal frontend takes its place.
func (s *server) config(sql *config.SQL) *config.Config {
	service := func(i int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: s.opt.port + i, BindOnIP: s.bindIP(i)}}
	}
	cfg := &config.Config{
		Persistence: config.Persistence{
			DefaultStore: "sqlite", VisibilityStore: "sqlite", NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{"sqlite": {SQL: sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: "active", CurrentClusterName: "active",
			ClusterInformation: map[string]cluster.ClusterInformation{
				"active": {Enabled: true, InitialFailoverVersion: 1, RPCAddress: s.dialAddress(0)},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			"frontend": service(0), "internal-frontend": service(1), "history": service(2), "matching": service(3), "worker": service(4),
		},
		Archival: config.Archival{
			History: config.HistoryArchival{State: "disabled"}, Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History: config.HistoryArchivalNamespaceDefaults{State: "disabled"}, Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
	}
	cfg.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: loopback}
	return cfg
}

func (s *server) options(cfg *config.Config, dir string, log *slog.Logger) ([]temporal.ServerOption, error) {
	key, err := pki.TokenKey(s.pki)
	if err != nil {
		return nil, err
	}
	frontend, err := pki.ServerTLS(s.pki, pki.Server, pki.CA)
	if err != nil {
		return nil, err
	}
	// History and matching have no authorizer, and the internal frontend makes everyone an administrator: only the
	// separate authority keeps clients out of them.
	internode, err := pki.ServerTLS(s.pki, pki.Internode, pki.InternodeCA)
	if err != nil {
		return nil, err
	}
	self, err := pki.InternodeTLS(s.pki)
	if err != nil {
		return nil, err
	}
	z := &authorizer{
		tokens: tokenSigner{key: key}, log: log,
		space: spaceGate{dir: dir, floor: s.opt.minFree, canary: s.canary, log: log, limit: &logLimit{}},
	}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for i, name := range []primitives.ServiceName{primitives.FrontendService, primitives.InternalFrontendService,
		primitives.HistoryService, primitives.MatchingService, primitives.WorkerService} {
		hosts[name] = static.SingleLocalHost(s.dialAddress(i))
	}
	revoked := pki.NewRevocations(s.pki)
	return []temporal.ServerOption{
		temporal.WithConfig(cfg), // before WithClaimMapper, whose function gets it at once
		temporal.ForServices(temporal.Services),
		temporal.WithStaticHosts(hosts),
		temporal.WithTLSConfigFactory(&encryption.FixedTLSConfigProvider{
			FrontendServerConfig: frontend, InternodeServerConfig: internode, InternodeClientConfig: self,
		}),
		temporal.WithDynamicConfigClient(dynamicconfig.StaticClient{
			// One shard has one poller; at its default of 20 polls a second a step takes 50 ms for nothing.
			dynamicconfig.TransferProcessorMaxPollRPS.Key(): 200,
			dynamicconfig.TimerProcessorMaxPollRPS.Key():    200,
			dynamicconfig.EnablePrincipalPropagation.Key():  true, // who did it stands in every history event
		}),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return mapper{revoked: revoked} }),
		temporal.WithAuthorizer(z),
		temporal.WithChainedFrontendGrpcInterceptors(z.intercept),
		temporal.WithLogger(serverLog(s.level)),
	}, nil
}

// stop ends Web UI and server, within stopTimeout.
func (s *server) stop() error {
	s.level.SetLevel(zap.ErrorLevel)
	if s.ui != nil {
		s.ui.stop()
	}
	done := make(chan error, 1)
	go func() { done <- s.temporal.Stop() }()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the Temporal server did not stop within %v; ending the process (its database is safe, as after a crash)", stopTimeout)
	}
}

func (s *server) readyLine(cluster string) string {
	ui := "none"
	if s.opt.uiPort != 0 {
		ui = "http://" + net.JoinHostPort(loopback, strconv.Itoa(s.opt.uiPort))
	}
	return fmt.Sprintf("READY frontend=%s ui=%s cluster=%s version=%s",
		net.JoinHostPort(s.opt.bind, strconv.Itoa(s.opt.port)), ui, cluster, headers.ServerVersion)
}
