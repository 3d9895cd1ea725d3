#!/usr/bin/env bash
# Builds the image localhost/gsb:VERSION with buildah, as root or as a user who may make user namespaces.
#   build.sh
# From the environment:
#   BASE    the image that lends its tools; without it the Containerfile's, and where that cannot be had, or where BASE is
#           "debootstrap", one that mmdebstrap makes of Debian's archive
#   FRESH   anything: take nothing of what an earlier build has left, for Debian's latest corrections
# and what buildah itself reads there: without fuse-overlayfs a user gives STORAGE_DRIVER=overlay, or each layer is copied.
# A second build takes what has not changed from the first. A crash leaves no image; the next build goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."

made=localhost/gsb-base:bookworm
fresh=${FRESH:+--no-cache}
# It asks for nothing that a build in a container or on a small machine could not give.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

if ! command -v buildah >/dev/null; then
    echo "buildah is needed to build the image. Install it, then repeat make image." >&2
    exit 1
fi
# The image has files of several users, so whoever builds it must be able to give files away.
if [ "$(id -u)" -ne 0 ] && [ "$(buildah unshare cat /proc/self/uid_map 2>/dev/null | wc -l)" -lt 2 ]; then
    echo "$(id -un) cannot build the image: it takes newuidmap and a line for $(id -un) in /etc/subuid and /etc/subgid, or root." >&2
    exit 1
fi

# Debian's archive as an image: nothing but apt and what it needs.
debootstrap() {
    if [ -z "$fresh" ] && buildah inspect --type image "$made" >/dev/null 2>&1; then return; fi
    if ! command -v mmdebstrap >/dev/null; then
        echo "mmdebstrap is needed to make a base without a registry. Install it, or name an image: make image BASE=..." >&2
        return 1
    fi
    echo "== making a base of Debian's archive, which takes a minute"
    local folder container
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name as it is now
    trap "rm -rf '$folder'" EXIT
    mmdebstrap --quiet --variant=apt bookworm "$folder/base.tar"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/base.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$made" >/dev/null
}

# The base: the one that was asked for, or the Containerfile's, or one of our own making.
base=${BASE:-$(sed -n 's/^ARG BASE=//p' Containerfile)}
if [ "$base" != debootstrap ] && ! buildah inspect --type image "$base" >/dev/null 2>&1 &&
    ! problem=$(buildah pull --quiet "$base" 2>&1 >/dev/null); then
    if [ -n "${BASE:-}" ]; then
        echo "The base $BASE cannot be had: ${problem##*$'\n'}" >&2
        exit 1
    fi
    echo "== $base cannot be had from here"
    base=debootstrap
fi
if [ "$base" = debootstrap ]; then
    debootstrap
    base=$made
fi

# When and from what: the last change of anything that the build may read, as .containerignore lists it.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mapfile -t parts < <(sed -n 's/^!//p' .containerignore)
epoch=${SOURCE_DATE_EPOCH:-}
revision=
if git rev-parse --git-dir >/dev/null 2>&1; then
    epoch=${epoch:-$(git log -1 --format=%ct -- Containerfile .containerignore "${parts[@]}")}
    revision=$(git log -1 --format=%H -- Containerfile .containerignore "${parts[@]}")
    if [ -n "$(git status --porcelain -- Containerfile .containerignore "${parts[@]}")" ]; then revision+=-changed; fi
fi
epoch=${epoch:-$(date +%s)}
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
secret=()
# Whom this machine trusts, for the build alone: some networks look into TLS.
if [ -f "$certificates" ]; then secret=(--secret "id=certificates,src=$certificates"); fi

echo "== building localhost/gsb:$version from $base"
start=$SECONDS
# Every file has the same time, so that a layer of an earlier build is the one that a new build would make.
buildah build --layers --format oci --timestamp 0 $fresh "${secret[@]}" \
    --build-arg "BASE=$base" --build-arg "SOURCE_DATE_EPOCH=$epoch" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.revision=$revision" \
    --label "org.opencontainers.image.created=$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
    --tag "localhost/gsb:$version" .
size=$(buildah images --format '{{.Size}}' "localhost/gsb:$version")
echo "== localhost/gsb:$version is ready after $((SECONDS - start)) s, $size, $(buildah images --format '{{.Digest}}' "localhost/gsb:$version")"
