#!/usr/bin/env bash
# Fetches Apache Kafka's jars with Maven, once, into ${VARVE_TOOLS:-~/.cache/varve-tools}/kafka-VERSION/libs, and prints that folder.
set -euo pipefail
version=4.3.0
dir=${VARVE_TOOLS:-$HOME/.cache/varve-tools}/kafka-${version%.*}
if ! ls "$dir"/libs/kafka_2.13-$version.jar >/dev/null 2>&1; then
  for tool in mvn java; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: the comparison with Apache Kafka needs a JDK (17 or later) and Maven" >&2; exit 1; }
  done
  mkdir -p "$dir"
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>'
    for artifact in kafka_2.13 kafka-tools kafka-clients; do
      echo "<dependency><groupId>org.apache.kafka</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$dir/pom.xml"
  mvn -q -B -f "$dir/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir/libs" -DincludeScope=runtime >"$dir/mvn.log" 2>&1 ||
    { tail -5 "$dir/mvn.log" >&2; exit 1; }
fi
echo "$dir/libs"
