#!/usr/bin/env bash
# What builds the image and its base without a registry: buildah and mmdebstrap, with newuidmap for users who are not
# root. Installs what is missing with apt when it may, and otherwise says what is missing.
set -euo pipefail

missing=()
command -v buildah >/dev/null || missing+=(buildah)
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
command -v newuidmap >/dev/null || missing+=(uidmap)
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]} (Debian's names). Install them, then repeat make image." >&2
    exit 1
fi
echo "== installing with apt: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
