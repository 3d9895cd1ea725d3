#!/usr/bin/env bash
# Makes a Python environment with nothing but Python's own venv and pip.
#   environment.sh FOLDER PIP-ARGUMENTS...
# The stamp FOLDER/.installed is written last, so an interrupted installation is taken up again.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$1
shift

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python >= 3.11 with venv was found. Install one (Debian: python3 python3-venv) or set PYTHON." >&2
    return 1
}

start=$SECONDS
if ! "$folder/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    echo "== making $folder with $("$python" --version)"
    mkdir -p "$(dirname "$folder")"
    "$python" -m venv --clear "$folder"
fi
echo "== installing into $folder: $*"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
touch "$folder/.installed"
echo "== $folder is ready after $((SECONDS - start)) s"
