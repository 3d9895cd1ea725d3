#!/usr/bin/env bash
# Builds Helm with Go into .deps/helm, from the sources of one version by Go's own proxy and checksums.
# The stamp .deps/helm/.installed is written last, so an interrupted build is taken up again.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=v3.16.4
if ! command -v go >/dev/null; then
    echo "Go is needed to build Helm; make deps-test installs it." >&2
    exit 1
fi
mkdir -p .deps/helm
if ! .deps/helm/helm version >/dev/null 2>&1; then
    echo "== building Helm $version into .deps/helm, which takes some minutes"
    GOBIN=$PWD/.deps/helm go install "helm.sh/helm/v3/cmd/helm@$version"
fi
touch .deps/helm/.installed
