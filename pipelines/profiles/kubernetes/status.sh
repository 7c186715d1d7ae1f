#!/usr/bin/env bash
# Prints success, failed or running for a Job that submit.sh named. A cluster that does not answer leaves it running.
set -uo pipefail

conditions='{.metadata.name} {.status.conditions[?(@.status=="True")].type}'
if ! state=$(kubectl get "$1" --ignore-not-found -o jsonpath="$conditions"); then
  echo running
  exit
fi
case "$state" in
  *" "*Complete*) echo success ;;
  "" | *" "*Failed*) echo failed ;;
  *) echo running ;;
esac
