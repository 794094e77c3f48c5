# Sourced by all.sh and check.sh: runs stages, keeps their times, and prints a summary. Not a program.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export VARVE_TOOLS=${VARVE_TOOLS:-$HOME/.cache/varve-tools}
export CGO_ENABLED=0 GOFLAGS=${GOFLAGS:--buildvcs=false}
SUMMARY=() BAD=() FAILED=0
LOG=$(mktemp -d) && trap 'rm -rf "$LOG"' EXIT

# stage NAME COMMAND...: runs the command, shows its output, and goes on where it fails: one run tells everything.
stage() {
  local name=$1 start=$SECONDS rc=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" 2>&1 | tee "$LOG/${name// /-}.log" || rc=${PIPESTATUS[0]}
  local took=$((SECONDS - start)) verdict=ok
  [ "$rc" = 0 ] || { verdict=FAILED; FAILED=1; BAD+=("$name"); }
  SUMMARY+=("$(printf '%-24s %-7s %4d s' "$name" "$verdict" "$took")")
}

# finish prints what each stage came to and go test's own closing lines; after them, what failed and why:
# who sees only the end of the output sees that.
finish() {
  local name
  printf '\n=== summary (%d s)\n' "$SECONDS"
  printf '%s\n' "${SUMMARY[@]}"
  echo
  cat "$LOG"/*.log | grep -hE '^ok[[:space:]]' || true
  for name in "${BAD[@]}"; do
    printf '\n=== why %s failed\n' "$name"
    why "$LOG/${name// /-}.log"
  done
  exit "$FAILED"
}

# why shows the heart of a failed stage's log: where each failed test complains, or else how the log ends.
why() {
  grep -hE -A 4 '^[[:space:]]*--- FAIL|^panic:|^fatal error:|WARNING: DATA RACE' "$1" | grep -vE '^(ok|=== )' | cut -c1-300 | tail -n 14 | grep . || tail -n 12 "$1" | cut -c1-300
  grep -hE '^FAIL[[:space:]]' "$1" || true
}

format() {
  local bad
  bad=$(gofmt -l $(git ls-files -c -o --exclude-standard '*.go' | xargs -r ls -d 2>/dev/null))
  [ -z "$bad" ] || { printf 'not formatted (run gofmt -w):\n%s\n' "$bad"; return 1; }
}

# Packages of ordinary tests; end-to-end ones have a stage of their own.
unit_packages() { go list ./... | grep -v '/test/e2e'; }
