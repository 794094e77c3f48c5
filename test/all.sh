#!/usr/bin/env bash
# Everything that CI runs (make test), on a machine with Go, git and make; what else it needs it installs.
set -uo pipefail
. "$(dirname "$0")/stages.sh"

GOLANGCI=v2.12.0 # built from source once, into $VARVE_TOOLS

# Packages where goroutines meet: they are tested with the race detector too.
RACE='./broker/... ./cache/... ./compaction/... ./coordinator/... ./fetch/... ./httpapi/... ./ingest/... ./internal/service/...
  ./internal/telemetry/... ./kafka/... ./metadata/... ./objstore/... ./tiering/... ./cmd/varve/load/...'

tools() {
  # The race detector needs cgo, cgo a C compiler; the shipped build needs neither.
  command -v cc >/dev/null || apt-get install -y -q gcc libc6-dev || { apt-get update -q && apt-get install -y -q gcc libc6-dev; } ||
    { echo 'no C compiler, and none could be installed: the race detector needs one'; return 1; }
  if [ ! -x "$VARVE_TOOLS/golangci-lint-$GOLANGCI" ]; then
    local dir
    dir=$(mktemp -d)
    GOBIN=$dir GOFLAGS=-mod=mod go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$GOLANGCI" &&
      mkdir -p "$VARVE_TOOLS" && mv "$dir/golangci-lint" "$VARVE_TOOLS/golangci-lint-$GOLANGCI" || return 1
    rmdir "$dir"
  fi
  # ip and nft make the networks of internal/testutil/netns. Without them, or without root, its tests say so and are skipped.
  command -v ip >/dev/null && command -v nft >/dev/null || apt-get install -y -q iproute2 nftables || echo 'no iproute2 or nftables: no network namespaces'
  if [ -x internal/testutil/s3server/install.sh ]; then internal/testutil/s3server/install.sh; fi
}

build() {
  make build && ! ldd bin/varve >/dev/null 2>&1 || { echo 'bin/varve is not static'; return 1; }
}

race() {
  local present=() p
  for p in $RACE; do [ -d "${p%/...}" ] && present+=("$p"); done
  CGO_ENABLED=1 go test -race "${present[@]}"
}

unit() { go test $(unit_packages); }

e2e() {
  [ -d test/e2e ] || { echo 'none yet'; return 0; }
  go test -count=1 -timeout 15m ./test/e2e/...
}

# The faults of Jepsen's list against three real brokers, each in a network namespace; skipped, with the reason, where there can be none.
jepsen() { go run ./test/torture -bin bin/varve -short -seed 1; }

stage tools tools
stage format format
stage vet go vet ./...
stage lint "$VARVE_TOOLS/golangci-lint-$GOLANGCI" run ./...
stage build build
stage unit unit
stage race race
stage e2e e2e
stage jepsen jepsen
finish
