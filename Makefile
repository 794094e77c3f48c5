# The targets are a contract: scripts and users rely on their names. `make` alone lists them.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# What is installed for tests and benchmarks (S3 servers, golangci-lint, Apache Kafka) goes here, never into the system.
export VARVE_TOOLS ?= $(HOME)/.cache/varve-tools
export GOTOOLCHAIN ?= auto

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help build run cluster demo test check conformance clients torture sim failover replace tierscale idle bench fuzz

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/varve, static, no CGO
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/varve ./cmd/varve

run: build ## one broker on embedded defaults: Kafka on 127.0.0.1:9092, HTTP on 127.0.0.1:8080, data in ./data
	exec bin/varve serve $(ARGS)

cluster: build ## three brokers (Kafka 9092, 9094, 9096; HTTP 8080, 8082, 8084) and a real S3 server; Ctrl-C stops all
	internal/testutil/s3server/install.sh
	CGO_ENABLED=0 go run ./test/cluster -varve bin/varve $(ARGS)

demo: build ## the whole job on real input: produce, seal, offload, trim, read all back, verify
	CGO_ENABLED=0 go run ./test/demo -varve bin/varve $(ARGS)

test: ## everything that CI runs; installs what it needs
	test/all.sh

check: ## format, vet, house rules, unit tests with assertions on: the inner loop
	test/check.sh

conformance: build ## other people's client suites against a fresh broker (CASES_DIR, CASES="kcat franz-go ...")
	CGO_ENABLED=0 go run ./test/conformance -varve bin/varve $(ARGS)

clients: build ## unmodified clients of other makers, each through restarts of the broker; then Kafka's admin tools on both
	test/clients/install.sh
	CGO_ENABLED=0 go run ./test/clients -varve bin/varve $(ARGS)
	CGO_ENABLED=0 go run ./test/clients/admin -varve bin/varve

torture: build ## a cluster (ARGS="-brokers N -short ...") broken by a seeded plan under load (SECS, SEED), and what became of every record
	internal/testutil/s3server/install.sh
	CGO_ENABLED=0 go run ./test/torture -bin bin/varve $(if $(SECS),-secs $(SECS)) $(if $(SEED),-seed $(SEED)) $(ARGS)

failover: build ## what producers see of a cluster that loses a broker (ARGS="-kafka -only leader,restart -rounds 3")
	CGO_ENABLED=0 go run ./test/failover -varve bin/varve $(ARGS)

sim: ## the whole cluster in one process, from one seed (SEED), or as many as ARGS say (ARGS="-for 30m -from 100")
	go test ./test/sim -run TestSeeds -v -count=1 -timeout 0 -args $(if $(SEED),-seed $(SEED) -debug) $(ARGS)

replace: build ## brokers that lose their disks, and one that joins, in a cluster with 10 GB tiered: times, and bytes moved by kind (ARGS="-bytes N")
	internal/testutil/s3server/install.sh
	CGO_ENABLED=0 go run ./test/replace -varve bin/varve $(ARGS)

tierscale: build ## 3 GB through a real S3 server: hash chains, look-ups by time, fsck, deletion (ARGS="-bytes N -s3 versitygw")
	internal/testutil/s3server/install.sh
	CGO_ENABLED=0 go run ./test/tierscale -bin bin/varve $(ARGS)

idle: build ## memory, CPU and time to start of a broker that does nothing
	CGO_ENABLED=0 go run ./test/idle -bin bin/varve $(ARGS)

bench: build ## Apache Kafka 4.3 and Varve in turn, same client, same work: a table of ratios (ARGS=--quick: 3 minutes)
	CGO_ENABLED=0 go run ./test/bench -varve bin/varve $(ARGS)

fuzz: ## every fuzz target for FUZZTIME each (default 30s)
	test/fuzz.sh $(or $(FUZZTIME),30s)
