#!/usr/bin/env bash
# Every Kubernetes manifest under deploy/, validated strictly against the schemas of several
# Kubernetes releases. Needs python 3.10 or later, and network the first time; installs under
# $BARTIZAN_CACHE. Where kubectl is at hand, what kustomize renders is validated too.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=$(cd ../.. && pwd)
CACHE=${BARTIZAN_CACHE:-$HOME/.cache/bartizan}/manifests
# The first release with native sidecars on by default, one between, and the newest known.
RELEASES=(1.29 1.33 1.37)

mkdir -p "$CACHE"
if ! cmp -s requirements-manifests.txt "$CACHE/requirements.txt" || [[ ! -x $CACHE/venv/bin/python ]]; then
    rm -rf "$CACHE/venv"
    python3 -m venv "$CACHE/venv"
    "$CACHE/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-manifests.txt
    cp requirements-manifests.txt "$CACHE/requirements.txt"
fi

mapfile -t manifests < <(grep -rlE '^apiVersion: (v1|apps/v1)$' "$ROOT/deploy" --include='*.yaml' | sort)
if ((${#manifests[@]} < 3)); then
    echo "manifests.sh: only ${#manifests[@]} manifests found under deploy/" >&2
    exit 1
fi

rendered=$CACHE/rendered.yaml
rm -f "$rendered"
if command -v kubectl >/dev/null; then
    kubectl kustomize "$ROOT/deploy/kubernetes/base" >"$rendered"
    manifests+=("$rendered")
else
    echo "manifests.sh: no kubectl; what kustomize renders is not looked at" >&2
fi

for release in "${RELEASES[@]}"; do
    "$CACHE/venv/bin/kubernetes-validate" --strict --kubernetes-version "$release" "${manifests[@]}"
done

# Check the validator itself: it must refuse a manifest with an error.
broken=$CACHE/broken.yaml
sed 's/restartPolicy: Always/restartPolicy: [Always]/' "$ROOT/deploy/kubernetes/base/deployment.yaml" >"$broken"
if "$CACHE/venv/bin/kubernetes-validate" --strict "$broken" >/dev/null 2>&1; then
    echo 'manifests.sh: a broken manifest was accepted' >&2
    exit 1
fi
echo "manifests.sh: ${#manifests[@]} manifests are valid for ${RELEASES[*]}"
