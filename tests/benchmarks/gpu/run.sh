#!/bin/sh
# Install what pack.sh packed into a temporary folder, beside the machine's own packages, and check its GPU.
# The JSON goes to standard output, a line for each finished part to standard error.
set -eu
folder=${1:-.gpu}
[ $# -eq 0 ] || shift
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
python=${PYTHON:-python3}
"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$folder"/*.whl
export PYTHONPATH="$site"
"$python" "$site/bin/pilot-bench" bench gpu --json "$@"
