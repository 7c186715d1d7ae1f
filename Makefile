# Two commands do everything: `make scenario2` and `make test`. Both stand on `make install`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
# Tests run in three processes of one thread each, since some wait for engines that they have started, in the order that tests/conftest.py gives their files (pytest 9.2 has no groups with xdist 3.8).
TEST_PROCESSES ?= 3
# Options of pip's installations: continuous integration leaves byte code to the first import.
PIP_OPTIONS ?=
# uv unpacks packages in a third of pip's time, where it is installed.
INSTALL = $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/pip install $(PIP_OPTIONS))
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: install scenario1 scenario2 scenario3 faults privacy zoo ablation heterogeneity asynchrony tuning smoke smoke_faults smoke_study smokes figures report backbone test test-fast test-exhaustive lint types check docs wheel clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python >= 3.11 is needed, {sys.executable} is {v.major}.{v.minor}; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --upgrade-deps $(VENV)
	$(BIN)/pip install --quiet $(PIP_OPTIONS) "torch==$$(sed -n 's/^torch==//p' requirements.lock)"
	grep -v '^torch==' requirements.lock | $(INSTALL) --quiet --no-deps -r /dev/stdin  # complete, which `pip check` tests: nothing to resolve
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	@touch $@

scenario1 scenario2 scenario3 faults privacy zoo ablation heterogeneity asynchrony tuning smoke smoke_faults smoke_study figures report backbone: install
	$(BIN)/snakemake --cores $(CORES) $@

# One call: jobs of three targets side by side. Tests read what it made where PILOT_SMOKE_RESULTS names its results.
smokes: install
	$(BIN)/snakemake --cores $(CORES) smoke smoke_faults smoke_study

test: install
	$(PYTEST) -m "not exhaustive"

test-fast: install
	$(PYTEST) -m "not (slow or engine or java or browser or exhaustive)"

test-exhaustive: install
	$(PYTEST) -m exhaustive

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

check: lint types test

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Files of an earlier build would be packed, too.
wheel: install
	rm -rf build/lib build/bdist.*
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf $(VENV) .snakemake build dist site *.egg-info
