#!/usr/bin/env bash
# Installs the packages of Debian that its arguments name, as root or by sudo. On a new machine the
# lists of packages may be absent or old: then it fetches them.
set -euo pipefail

as_root=(env DEBIAN_FRONTEND=noninteractive)
[[ $(id -u) -eq 0 ]] || as_root=(sudo "${as_root[@]}")
install() { "${as_root[@]}" apt-get install --yes --no-install-recommends "$@" >/dev/null; }

install "$@" 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install "$@"; }
