#!/bin/sh
# Pack what `pilot-bench bench gpu` needs on a machine without a network that has PyTorch, transformers and their
# requirements: wheels of this project and of the packages below, of the versions in requirements.lock.
#
#   tests/benchmarks/gpu/pack.sh [FOLDER]     here; .gpu by default
#   tests/benchmarks/gpu/run.sh [FOLDER] ...  there, with options of `bench gpu`
#
# PYTHON_VERSION and PLATFORM are those of the other machine (3.12, x86_64).
set -eu
cd "$(dirname "$0")/../../.."
folder=${1:-.gpu} python=${PYTHON:-.venv/bin/python} tag=${PLATFORM:-x86_64}
packages='annotated-types|pydantic|pydantic_core|typing-inspection|transformers|tokenizers'

rm -rf "$folder" build/lib build/bdist.*
mkdir -p "$folder"
grep -xE "($packages)==.*" requirements.lock > "$folder/requirements.txt"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --implementation cp --platform "manylinux_2_28_$tag" --platform "manylinux_2_17_$tag" --platform "manylinux2014_$tag" \
  --dest "$folder" --requirement "$folder/requirements.txt"
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder" .
du -sh "$folder"
