#!/usr/bin/env bash
# Runs every fuzz target of the module for a time each: test/fuzz.sh 5m [PACKAGE-PATTERN]. Ends at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s} only=${2:-./...}
export CGO_ENABLED=0
for pkg in $(go list "$only"); do
  dir=$(go list -f '{{.Dir}}' "$pkg")
  for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | cut -c6- || true); do
    printf '=== %s %s (%s)\n' "$pkg" "$target" "$time"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg"
  done
done
