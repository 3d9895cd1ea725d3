#!/usr/bin/env bash
# Installs what the Node client in tests/interop imports, exactly as its lock file says.
set -euo pipefail
cd "$(dirname "$0")/../interop"

echo "== installing the Node client's packages into tests/interop/node_modules"
npm ci --no-update-notifier --no-audit --no-fund --loglevel=error
touch node_modules/.installed
