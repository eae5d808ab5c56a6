package server

import (
	"strconv"

	"github.com/csobackup/cso_backupnrestore/test/arangosim/store"
	"github.com/csobackup/cso_backupnrestore/test/arangosim/value"
)

// There is no write-ahead log to read from: the ticks are true, the tail is always empty.

func (r *request) tick() (string, error) {
	tick := ""
	err := r.store.View(func(tx *store.Tx) error { tick = strconv.FormatUint(tx.TxID(), 10); return nil })
	return tick, err
}

func (r *request) serverInfo() *value.Object {
	return value.New("version", r.cfg.Version, "serverId", "1718912345678", "engine", "rocksdb")
}

// onlySingle refuses coordinators, which have no log of their own.
func onlySingle(h handler) handler {
	return func(r *request) error {
		if r.isCluster() {
			return fail(1475, "replication API is not supported on a coordinator").withCode(501)
		}
		return h(r)
	}
}

func loggerState(r *request) error {
	tick, err := r.tick()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(tick, 10, 64)
	if err != nil {
		return err
	}
	return r.reply(200, value.New("state", r.walState(n), "server", r.serverInfo(), "clients", []any{}))
}

func walRange(r *request) error {
	tick, err := r.tick()
	if err != nil {
		return err
	}
	return r.reply(200, value.New("time", timestamp(), "tickMin", "1", "tickMax", tick, "server", r.serverInfo()))
}

func walLastTick(r *request) error {
	tick, err := r.tick()
	if err != nil {
		return err
	}
	return r.reply(200, value.New("time", timestamp(), "tick", tick, "server", r.serverInfo()))
}

func walTail(r *request) error {
	tick, err := r.tick()
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("x-arango-replication-checkmore", "false")
	h.Set("x-arango-replication-lastincluded", "0")
	h.Set("x-arango-replication-lastscanned", tick)
	h.Set("x-arango-replication-lasttick", tick)
	h.Set("x-arango-replication-frompresent", "true")
	return r.send(204, "", nil)
}

func loggerFirstTick(r *request) error { return r.reply(200, value.New("firstTick", "1")) }

func loggerRanges(r *request) error {
	tick, err := r.tick()
	if err != nil {
		return err
	}
	return r.reply(200, []any{value.New("datafile", "000001.log", "status", "open", "tickMin", "1", "tickMax", tick)})
}

func replicationServerID(r *request) error {
	return r.reply(200, value.New("serverId", "1718912345678"))
}

// The applier is idle and only answers: configuring and stopping it are part of one vendor test.

func applierConfig(r *request, o *value.Object) error {
	if r.flag("global", false) && r.db != store.SystemDatabase {
		return fail(11)
	}
	out := value.New("requestTimeout", 600, "connectTimeout", 10, "ignoreErrors", 0, "maxConnectRetries", 100, "lockTimeoutRetries", 0,
		"sslProtocol", 0, "chunkSize", 0, "skipCreateDrop", false, "autoStart", false, "adaptivePolling", true, "autoResync", false,
		"autoResyncRetries", 2, "maxPacketSize", 536870912, "includeSystem", true, "includeFoxxQueues", false, "requireFromPresent", true,
		"verbose", false, "incremental", false, "restrictType", "", "restrictCollections", []any{}, "connectionRetryWaitTime", 15,
		"initialSyncMaxWaitTime", 300, "idleMinWaitTime", 1, "idleMaxWaitTime", 2.5)
	for _, m := range o.Members {
		if m.Name != "password" {
			out.Set(m.Name, m.Value)
		}
	}
	return r.reply(200, out)
}

func applierState(r *request) error {
	state := value.New("started", timestamp(), "running", false, "phase", "inactive", "lastAppliedContinuousTick", nil,
		"lastProcessedContinuousTick", nil, "lastAvailableContinuousTick", nil, "safeResumeTick", nil, "ticksBehind", 0,
		"totalRequests", 0, "totalFailedConnects", 0, "totalEvents", 0, "time", timestamp())
	return r.reply(200, value.New("state", state, "server", r.serverInfo(), "endpoint", ""))
}
