#!/usr/bin/env bash
# Installs what the Node programs of a folder import, exactly as its lock file says.
#   packages.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/../../$1"

echo "== installing Node packages into $1/node_modules"
npm ci --no-update-notifier --no-audit --no-fund --loglevel=error
touch node_modules/.installed
