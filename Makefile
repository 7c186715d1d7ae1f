# Two commands do everything: `make scenario2` and `make test`. Both stand on `make install`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
# Tests run in two processes of one thread each; a file's tests stay together.
TEST_PROCESSES ?= 2

.PHONY: install scenario1 scenario2 faults zoo ablation heterogeneity tuning smoke smoke_faults smoke_study figures report backbone test test-fast lint types check docs clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python >= 3.11 is needed, {sys.executable} is {v.major}.{v.minor}; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==$$(sed -n 's/^torch==//p' requirements.lock)"
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	@touch $@

scenario1 scenario2 faults zoo ablation heterogeneity tuning smoke smoke_faults smoke_study figures report backbone: install
	$(BIN)/snakemake --cores $(CORES) $@

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile -m "not slow"

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

check: lint types test

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .snakemake build site *.egg-info
