#!/usr/bin/env bash
# Fetches Apache Kafka's jars of one line with Maven, as tests/deps/kafka/pom.xml says, into .deps/kafka/LINE.
#   kafka.sh LINE
# The stamp .deps/kafka/LINE/.installed is written last, so an interrupted fetch is taken up again.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$PWD/.deps/kafka/$1
if ! grep -q "<id>$1</id>" tests/deps/kafka/pom.xml; then
    echo "tests/deps/kafka/pom.xml has no profile $1: choose one of those it has as GSB_KAFKA_VERSION." >&2
    exit 1
fi
echo "== fetching Apache Kafka $1 into .deps/kafka/$1"
rm -rf "$folder"
mvn --quiet --batch-mode -Dstyle.color=never --file tests/deps/kafka/pom.xml --activate-profiles "$1" \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder"
touch "$folder/.installed"
