#!/bin/sh
# Renders every overlay, and checks them and the Dockerfile with checkov; checkov.yaml has the exceptions.
set -eu
cd "$(dirname "$0")/.."
rendered=$(mktemp -d)
trap 'rm -r "$rendered"' EXIT
for overlay in deploy/kubernetes/overlays/*/; do
    "$BIN/kubectl" kustomize "$overlay" >"$rendered/$(basename "$overlay").yaml"
done
"$DEPLOY_BIN/python" -m checkov.main --config-file deploy/checkov.yaml --framework kubernetes --directory "$rendered"
"$DEPLOY_BIN/python" -m checkov.main --config-file deploy/checkov.yaml --framework dockerfile --file Dockerfile
