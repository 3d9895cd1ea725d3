#!/usr/bin/env bash
# Fetches the definitions of foreign kinds that tests/deps/crds.txt lists into .deps/crds, with Go and Maven. Whatever
# they came in is deleted again; Maven keeps its own copies of the jars.
# The stamp .deps/crds/.installed comes with them, all at once, so an interrupted fetch is begun again.
set -euo pipefail
cd "$(dirname "$0")/../.."

for program in go mvn java; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is needed to fetch the definitions of foreign kinds; make deps-test installs it." >&2
        exit 1
    fi
done

echo "== fetching the definitions of foreign kinds into .deps/crds"
start=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/crds"
# Only sources are wanted, so no other Go is fetched for a module that would be built with a newer one.
export GOMODCACHE=$work/go GOFLAGS=-modcacherw GOTOOLCHAIN=local

fail() {
    cat "$work/why" >&2
    exit 1
}

same() { # WHAT SUM WANTED
    if [ "$2" != "$3" ]; then
        echo "$1 has the sum $2, and tests/deps/crds.txt says $3." >&2
        exit 1
    fi
}

go_file() { # MODULE VERSION SUM FILE
    local sum=$GOMODCACHE/cache/download/$1/@v/$2.ziphash
    # Go complains of a module that wants a newer one, and has unpacked it all the same.
    [ -e "$sum" ] || (cd "$work" && go mod download "$1@$2") >"$work/why" 2>&1 || [ -e "$sum" ] || fail
    same "$1 $2" "$(cat "$sum")" "$3"
    cp "$GOMODCACHE/$1@$2/$4" "$work/crds/"
}

jar() { # GROUP:NAME:VERSION SUM
    local name=${1#*:}
    mvn --quiet --batch-mode -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact="$1" -DoutputDirectory="$work/jars" </dev/null >"$work/why" 2>&1 || fail
    same "$1" "$(sha256sum <"$work/jars/${name/:/-}.jar" | cut -d ' ' -f 1)" "$2"
}

made() { # CLASS VERSION
    java -cp "$work/jars/*" io.strimzi.crdgenerator.CrdGenerator --target-kube 1.25+ --crd-api-version v1 \
        --api-versions "$2" --storage-version "$2" --yaml "$1=$work/crds/$1.yaml" >"$work/why" 2>&1 || fail
}

while read -r from what more; do
    case $from in
        go) read -r version sum file <<<"$more" && go_file "$what" "$version" "$sum" "$file" ;;
        jar | made) "$from" "$what" "$more" ;;
    esac
done <tests/deps/crds.txt
touch "$work/crds/.installed"
mkdir -p .deps
rm -rf .deps/crds
mv "$work/crds" .deps/crds
echo "== .deps/crds is ready after $((SECONDS - start)) s"
