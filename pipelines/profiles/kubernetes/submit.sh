#!/usr/bin/env bash
# Submits a job script of Snakemake as a Kubernetes Job and prints the Job's name.
# Usage: submit.sh RULE CPUS MEMORY_MB MINUTES GPUS SCRIPT
# PILOT_BENCH_CLAIM: the PersistentVolumeClaim (pilot-bench). PILOT_BENCH_MOUNT: where it is mounted, here and in the
# pods (/work). PILOT_BENCH_IMAGE: an image with the Python that made .venv (python:3.11).
set -euo pipefail

# A path as a YAML string, whatever it holds.
quoted() { printf "'%s'" "${1//\'/\'\'}"; }

rule=$1 cpus=$2 memory=$3 minutes=$4 gpus=$5 script=$6
kubectl create -o name -f - <<MANIFEST
apiVersion: batch/v1
kind: Job
metadata:
  generateName: pilot-bench-${rule//_/-}-
  labels: {app: pilot-bench, rule: "$rule"}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: $((minutes * 60))
  ttlSecondsAfterFinished: 86400
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: job
          image: "${PILOT_BENCH_IMAGE:-python:3.11}"
          command: [/bin/bash, $(quoted "$script")]
          workingDir: $(quoted "$PWD")
          resources:
            requests: {cpu: "$cpus", memory: "${memory}M"}
            limits: {memory: "${memory}M", nvidia.com/gpu: "$gpus"}
          volumeMounts:
            - {name: work, mountPath: $(quoted "${PILOT_BENCH_MOUNT:-/work}")}
      volumes:
        - name: work
          persistentVolumeClaim: {claimName: "${PILOT_BENCH_CLAIM:-pilot-bench}"}
MANIFEST
