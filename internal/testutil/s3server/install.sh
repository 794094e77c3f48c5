#!/bin/sh
# Installs the S3 servers that the tests run, in pinned versions, where they are missing. MinIO is AGPL and no longer
# maintained: a separate process in tests only, never a dependency of ours.
set -eu
tools=${VARVE_TOOLS:-$HOME/.cache/varve-tools}
mkdir -p "$tools"
install() { # name, module@version
	[ -x "$tools/$1" ] || GOBIN=$tools GOFLAGS=-mod=mod CGO_ENABLED=0 go install "$2"
}
cd "$tools" # outside of any module
install minio github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
install versitygw github.com/versity/versitygw/cmd/versitygw@v1.8.0
