#!/usr/bin/env bash
# Fetches what the clients of test/clients need from the package registries that this machine is set up for, and builds their
# programs, into ${VARVE_TOOLS:-~/.cache/varve-tools}/clients. What is there already stays. Needs a JDK (17 or later), Maven,
# Python 3 with venv, Node with npm and a C++ compiler (for the codecs of kafkajs).
set -euo pipefail
cd "$(dirname "$0")"
dir=${VARVE_TOOLS:-$HOME/.cache/varve-tools}/clients
mkdir -p "$dir/bin"

../bench/install-kafka.sh >/dev/null # Kafka 4.3: its client and its tools
export LIBS43=${dir%/clients}/kafka-4.3/libs

java_client() { # VERSION
  local to=$dir/java-$1
  mkdir -p "$to/classes"
  if [ "$1" = 4.3.0 ]; then
    ln -sfn "$LIBS43" "$to/libs"
  elif ! ls "$to"/libs/kafka-clients-"$1".jar >/dev/null 2>&1; then
    cat >"$to/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>$1</version></dependency></dependencies></project>
POM
    nice -n 5 mvn -q -B -f "$to/pom.xml" dependency:copy-dependencies -DoutputDirectory="$to/libs" -DincludeScope=runtime
  fi
  local sources=(java/RoundTrip.java)
  if [ "$1" = 4.3.0 ]; then sources+=(java/AdminTools.java); fi
  for source in "${sources[@]}"; do
    if [ ! "$to/classes/$(basename "$source" .java).class" -nt "$source" ]; then
      nice -n 5 javac -d "$to/classes" -cp "$to/libs/*" "$source"
    fi
  done
}
for version in 4.3.0 3.9.1 2.8.2; do java_client "$version"; done

if ! cmp -s python/requirements.txt "$dir/venv/requirements.txt"; then
  python3 -m venv "$dir/venv"
  nice -n 5 "$dir/venv/bin/pip" install -q -r python/requirements.txt
  cp python/requirements.txt "$dir/venv/"
fi

if ! cmp -s node/package.json "$dir/node/installed.json"; then
  mkdir -p "$dir/node"
  cp node/package.json "$dir/node/"
  # The zstd codec is built from source, with a binding that does not know yet that Node's headers are C++17.
  (cd "$dir/node" && CXXFLAGS=-std=c++17 nice -n 5 npm install --silent --no-audit --no-fund)
  cp node/package.json "$dir/node/installed.json"
fi

command -v kcat >/dev/null || apt-get install -y -q kcat || { apt-get update -q && apt-get install -y -q kcat; }

export CGO_ENABLED=0
go build -o "$dir/bin/franz" ./franz
go build -o "$dir/bin/tools" ./tools
(cd sarama && go build -o "$dir/bin/sarama" .)
