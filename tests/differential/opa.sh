#!/usr/bin/env bash
# Generated policies must mean on both engines what they mean in OPA, and built-ins must have the
# same values: see README.md, "Policies" and "Built-ins".
# Arguments: how many policies (default 3000), the seed (default 1). Needs cargo, python 3.10 or later
# on x86-64 Linux, and network the first time; installs under $BARTIZAN_CACHE.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
export ROOT PYTHONDONTWRITEBYTECODE=1
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
export POLICIES=$CARGO_TARGET_DIR/debug/examples/policies
cache=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/opa
version=0.4.4
sha256=d411c901e14b8c7c3023e23e4a944f4cf429c1d31baf80e959e57d11efbfd24a
wheel=opa_golib_python_bindings-$version-py3-none-manylinux_2_34_x86_64.whl
export OPA=$cache/$version/opa_bindings/libopabridge.so

if [ ! -e "$OPA" ]; then
    mkdir -p "$cache"
    [ -x "$cache/venv/bin/pip" ] || python3 -m venv "$cache/venv"
    # The package asks for Python 3.14 for its own modules. Only the library in it is used here.
    "$cache/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$cache" \
        --only-binary=:all: --python-version 3.14 --platform manylinux_2_34_x86_64 \
        "opa-golib-python-bindings==$version"
    echo "$sha256  $cache/$wheel" | sha256sum --check --quiet
    rm -rf "$cache/unpacked" && mkdir -p "$cache/unpacked"
    "$cache/venv/bin/python" -m zipfile -e "$cache/$wheel" "$cache/unpacked"
    mv "$cache/unpacked" "$cache/$version"
fi

cargo build --quiet --locked --package bartizan-rego --example policies --manifest-path "$ROOT/Cargo.toml"
python3 opa.py "${@:-3000}"
# As many calls of each built-in as there are hundreds of policies, and one more.
exec python3 calls.py "$((${1:-3000} / 100 + 1))" "${2:-1}"
