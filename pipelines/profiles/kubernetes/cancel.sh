#!/usr/bin/env bash
# Deletes the Jobs that submit.sh named, with their pods. Snakemake waits two seconds for this.
set -euo pipefail

kubectl delete --ignore-not-found --wait=false "$@"
