#!/usr/bin/env bash
# The programs of the system that tests need: a C compiler (for the simulated power cut), strace (for faults of the
# disk), OpenSSL (for an authority's time-stamps), Go with its own packages for transparency logs (for a verifier that
# is not ours), PostgreSQL (for the store on it; tests start it themselves, what apt starts is not used), Java with
# Maven (for Apache Kafka, which tests start themselves too), OpenSSH's server (for files that partners exchange), Node
# with npm (for a client in another language), Chromium (for the pages), Prometheus (for the alerts; only its
# promtool), HAProxy (for replacing nodes under load) and SoftHSM (for keys in a token). Installs what is missing with
# apt when it may, and otherwise says what is missing.
#   tools.sh [servers|systems]
# With "servers" only PostgreSQL, Java and Maven, which make run BACKEND=cluster needs; with "systems" OpenSSH too, for
# make systems.
set -euo pipefail

only=${1:-all}
repeat="make deps-test"
if [ "$only" != all ]; then repeat="the command"; fi

missing=()
command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
if [ "$only" != servers ]; then
    [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
fi
if [ "$only" = all ]; then
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v strace >/dev/null || missing+=(strace)
    { command -v haproxy || [ -x /usr/sbin/haproxy ]; } >/dev/null || missing+=(haproxy)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v go >/dev/null || missing+=(golang-go)
    [ -d /usr/share/gocode/src/golang.org/x/mod/sumdb ] || missing+=(golang-golang-x-mod-dev)
    node_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
    if [ "${node_major:-0}" -lt 20 ]; then missing+=(nodejs); fi
    command -v npm >/dev/null || missing+=(npm)
    command -v chromium >/dev/null || missing+=(chromium)
    command -v promtool >/dev/null || missing+=(prometheus)
    { command -v softhsm2-util && [ -e /usr/lib/softhsm/libsofthsm2.so ]; } >/dev/null || missing+=(softhsm2)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v age >/dev/null || missing+=(age)
fi

if [ ${#missing[@]} -eq 0 ]; then
    if [ "$only" != all ]; then exit 0; fi
    echo "== a C compiler, strace, OpenSSL, Go, PostgreSQL, OpenSSH, Java, Maven, Node $(node --version), Chromium and HAProxy are here"
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]} (Debian's names; Node 20 or later). Install them, then repeat $repeat." >&2
    exit 1
fi
echo "== installing with apt: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
if [ "$only" != all ]; then exit 0; fi
node_major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
if [ "$node_major" -lt 20 ]; then
    echo "apt gave Node $node_major, but 20 or later is needed. Install it, then repeat make deps-test." >&2
    exit 1
fi
