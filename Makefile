# cso_backupnrestore: everything a newcomer types. `make` alone lists the targets.
SHELL := /bin/bash
CACHE := $(or $(CSO_CACHE),$(HOME)/.cache/cso-backup)
BIN   := $(CURDIR)/bin
TOOLS := $(CACHE)/tools
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/csobackup/cso_backupnrestore/internal/buildinfo.version=$(VERSION)
# Debian packages: real servers for the lab, and what docs/format.md uses to recover by hand.
PACKAGES := mariadb-server etcd-server etcd-client zookeeper maven openjdk-17-jdk-headless age zstd python3
PROGRAMS := mariadbd etcd etcdctl mvn javac age zstd python3
DIR ?= /tmp/cso-lab

.DEFAULT_GOAL := help
.PHONY: help build temporald demo test test-go test-versions test-arangosim test-boundaries test-hostile test-kill test-arangodb test-temporald lint lab-up lab-down bench bench-peers fuzz record-history deps clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

build: ## build the three binaries into bin/
	@mkdir -p $(BIN)
	@echo "building cso_backupnrestore and cso-backup-worker"
	@go build -ldflags '$(LDFLAGS)' -o $(BIN)/cso_backupnrestore ./cli/cso_backupnrestore
	@go build -ldflags '$(LDFLAGS)' -o $(BIN)/cso-backup-worker ./worker/cso-backup-worker
	@$(MAKE) --no-print-directory temporald

temporald:
	@mkdir -p $(BIN)
	@echo "building cso-temporald (the first time takes about five minutes: the Temporal server and its Web UI are compiled)"
	@go -C temporald build -ldflags '$(LDFLAGS)' -o $(BIN)/cso-temporald .

deps: ## install the Debian packages that lab and tests need (root)
	@missing=; for p in $(PROGRAMS); do command -v $$p >/dev/null || missing=1; done; \
	[ -e /usr/share/java/zookeeper.jar ] || missing=1; \
	if [ -n "$$missing" ]; then echo "installing $(PACKAGES)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; fi

demo: deps build ## the whole story on real servers: fill, back up, wreck, restore, EQUAL (KEEP=1 leaves it running)
	@test/demo.sh

test: deps build test-go test-temporald ## all tests, on real servers

test-go:
	@go vet ./...
	@go test -timeout 30m $$(go list ./... | grep -v /test/e2e)
	@echo "end to end, on its own: its deaths must hit the phase they are meant for"
	@CSO_LAB_BIN=$(BIN) CSO_KILL_SEED=$(KILL_SEED) go test -timeout 45m ./test/e2e

CASSANDRA_VERSIONS     := 5.0.9 4.1.10 4.0.19
ELASTICSEARCH_VERSIONS := 7.10.2 7.17.29 8.19.21 2.19.1 2.19.4

test-versions: deps ## tests of Cassandra, Elasticsearch and OpenSearch (2.x) on every version that the lab has (long)
	@failed=; \
	for v in $(CASSANDRA_VERSIONS); do echo "Cassandra $$v"; \
	  CSO_CASSANDRA_VERSION=$$v CSO_CASSANDRA_RING=all go test -count=1 -timeout 2h ./plugins/cassandra || failed="$$failed cassandra-$$v"; done; \
	for v in $(ELASTICSEARCH_VERSIONS); do echo "Elasticsearch or OpenSearch $$v"; \
	  CSO_TEST_VERSIONS=$$v go test -count=1 -timeout 2h ./plugins/elasticsearch || failed="$$failed elasticsearch-$$v"; done; \
	echo "fill, wreck and fingerprint of the lab"; \
	go test -count=1 -timeout 1h -tags versions -run 'TestVersions$$' ./test/lab || failed="$$failed lab"; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-boundaries: deps ## conformance suites with a kill at every artifact boundary and 200 inside artifacts (long)
	@PLUGINTEST_KILLS=200 go test -count=1 -timeout 3h -run 'TestConformance$$' ./plugins/...

test-arangosim: ## the vendor's own driver tests against the simulated ArangoDB, counted by name (make test runs all but the slow ones)
	@go run ./test/arangosim/judge

# Of the kill matrix make test runs one sample, always the same: a red run then speaks of the change. KILL_SEED= draws another.
KILL_SEED ?= 1795380080544096426
KILL_RESULTS := $(CACHE)/kill.jsonl

test-kill: deps build ## the whole kill matrix, on real processes; goes on where it was interrupted; writes docs/reliability.md (long)
	@CSO_LAB_BIN=$(BIN) CSO_KILL=all CSO_KILL_RESULTS=$(KILL_RESULTS) CSO_KILL_DOC=$(CURDIR)/docs/reliability.md \
	  go test -count=1 -timeout 8h -run 'TestKill$$' ./test/e2e

test-arangodb: ## the whole conformance suite on a real ArangoDB, whose content is overwritten: ENDPOINT=http://HOST:8529[,…] [ARANGO_USER=root] [PASSWORD_FILE=…] [JWT_FILE=…]
	@CSO_TEST_ARANGODB_ENDPOINT='$(ENDPOINT)' CSO_TEST_ARANGODB_USER='$(ARANGO_USER)' CSO_TEST_ARANGODB_PASSWORD_FILE='$(PASSWORD_FILE)' \
	CSO_TEST_ARANGODB_JWT_FILE='$(JWT_FILE)' go test -tags arangodb -count=1 -timeout 1h -v -run 'TestConformanceReal$$' ./plugins/arangodb

test-temporald:
	@go -C temporald vet ./...
	@go -C temporald test -timeout 10m ./...

lint: $(TOOLS)/golangci-lint $(TOOLS)/workflowcheck ## golangci-lint (depguard is the architecture) and workflowcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || (echo "run gofmt -w on the files above"; false)
	@$(TOOLS)/golangci-lint run ./...
	@$(TOOLS)/workflowcheck ./workflows

$(TOOLS)/golangci-lint: tools/go.mod
	@echo "building golangci-lint (once, some minutes)"
	@mkdir -p $(TOOLS) && go -C tools build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/workflowcheck: tools/go.mod
	@mkdir -p $(TOOLS) && go -C tools build -o $@ go.temporal.io/sdk/contrib/tools/workflowcheck

lab-up: deps build ## start real servers, cso-temporald and a worker in DIR (default /tmp/cso-lab)
	@go run ./test/lab/cmd/lab up --dir $(DIR)
	@echo 'now: eval "$$(go run ./test/lab/cmd/lab env --dir $(DIR))"'

lab-down: ## stop what lab-up started in DIR
	@go run ./test/lab/cmd/lab down --dir $(DIR)

PEERS := $(CACHE)/peers

bench: deps build bench-peers ## measure beside the native tools and write docs/benchmarks.md (long; ONLY=etcd: one chapter)
	@CSO_LAB_BIN=$(BIN) PATH="$(PEERS)/bin:$(PEERS)/node_modules/.bin:$$PATH" go run ./test/bench $(if $(ONLY),-only $(ONLY))

bench-peers: # what cannot be had is left out of the tables, which say so
	@command -v restic >/dev/null && command -v mydumper >/dev/null || { echo "installing restic and mydumper, the peers"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends restic mydumper >/dev/null; }
	@[ -x $(PEERS)/bin/medusa ] || { echo "installing Medusa from PyPI, a peer"; \
	  python3 -m venv $(PEERS) && $(PEERS)/bin/pip install -q cassandra-medusa; } || echo "Medusa cannot be installed"
	@[ -x $(PEERS)/node_modules/.bin/elasticdump ] || { echo "installing elasticdump from npm, a peer"; \
	  mkdir -p $(PEERS) && npm install --silent --no-fund --no-audit --prefix $(PEERS) elasticdump; } || echo "elasticdump cannot be installed"

fuzz: ## run every fuzz target for FUZZTIME (default 1m each)
	@for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do d=$$(dirname $$f); \
	  for t in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$f | sed 's/func //'); do \
	    echo "$$d $$t"; go test -run '^$$' -fuzz "^$$t$$" -fuzztime $(or $(FUZZTIME),1m) ./$$d || exit 1; done; done

test-hostile: deps build ## planted garbage, forged manifests, a full and a read-only store (mounts, as root), dead servers
	@CSO_LAB_BIN=$(BIN) go test -tags hostile -count=1 -timeout 20m -run 'TestPlanted|TestDisk|TestSickServers' ./test/e2e

record-history: build ## record replay histories of the landed commit (clean tree only; never regenerated)
	@test -z "$$(git status --porcelain)" || (echo "commit first: histories are recorded from landed code only"; false)
	@CSO_LAB_BIN=$(BIN) CSO_RECORD=$(CURDIR)/workflows/testdata/history/$$(git describe --tags --abbrev=0 2>/dev/null || echo v0)-$$(git rev-parse --short HEAD) \
	  go test -tags record -count=1 -timeout 20m -run TestRecordHistories ./test/e2e

clean: ## remove bin/
	@rm -rf $(BIN)
