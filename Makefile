# Each target creates what it needs; `make demo` on a fresh machine is the place to start.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OLDEST_PYTHON ?= python3.10
OLDEST := $(VENV)-oldest

.PHONY: demo test test-oldest test-wheel slow bench lint docs clean

demo: $(VENV)/.installed
	$(BIN)/axtrain demo

# Each process begins with its half of the files, so that most fixtures of a module are made once, and computes in one
# thread, so that the two do not wait for each other's.
test: $(VENV)/.installed-test
	TF_NUM_INTRAOP_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

# Others' old packages beside others' new ones warn of each other, Keras 3.10 of every model that it loads, and Ray 2.40
# leaves files open.
QUIET := -W ignore::DeprecationWarning -W ignore::FutureWarning -W ignore::ResourceWarning -W "ignore:The structure of :UserWarning"

test-oldest: $(OLDEST)/.installed-test
	TF_NUM_INTRAOP_THREADS=1 OPENBLAS_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n 2 --dist worksteal $(QUIET) $(ARGS)

test-wheel: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow tests/end_to_end/test_wheel.py $(ARGS)

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -q -m "slow or eager" --graphs $(ARGS)

bench: $(VENV)/.installed-test
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES= $(BIN)/python benchmarks/emulation.py --json benchmarks/results/emulation_avx2.json
	$(BIN)/python benchmarks/emulation.py --json benchmarks/results/emulation.json
	$(BIN)/python benchmarks/emulation.py --markdown benchmarks/results/emulation_avx2.json benchmarks/results/emulation.json
	$(BIN)/python benchmarks/faults.py --json benchmarks/results/faults.json
	$(BIN)/python benchmarks/active.py --json benchmarks/results/active.json
	$(BIN)/python benchmarks/coded_overhead.py --json benchmarks/results/coded_overhead.json

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p axtrain

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "axtrain needs Python 3.10 to 3.13: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: an install is repeated only when the project's own file changes.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# Exactly the lower bounds of pyproject.toml, on the oldest Python that it admits.
$(OLDEST)/.installed-test: pyproject.toml tests/oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c tests/oldest.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) axtrain.egg-info build dist
