# The suite with its locked dependencies: `snakemake` and `pilot-bench` in any folder that is mounted at /work.
FROM python:3.11-slim-bookworm

WORKDIR /opt/pilot-bench
COPY requirements.lock ./
# An index with PyTorch's build for processors alone makes the image some gigabytes smaller.
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir "torch==$(sed -n 's/^torch==//p' requirements.lock)"
RUN grep -v '^torch==' requirements.lock > rest.lock && pip install --no-cache-dir --no-deps -r rest.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY pilot pilot
COPY baselines baselines
COPY pipelines pipelines
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && pip check && rm -rf build

ENV FLWR_TELEMETRY_ENABLED=0
WORKDIR /work
CMD ["pilot-bench", "--help"]
