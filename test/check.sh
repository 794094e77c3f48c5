#!/usr/bin/env bash
# The inner loop: what can be known in minutes.
set -uo pipefail
. "$(dirname "$0")/stages.sh"

unit() { go test -tags invariants -short $(unit_packages); }

stage format format
stage vet go vet -tags invariants ./...
stage 'house rules' go test ./internal/lint
stage unit unit
finish
