# Everything from nothing but Python, make and a package index. Every target below sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWIFT := .swift
LMMS := .lmms
SEED ?= 7

.PHONY: install demo test check bench mutants lmms nightly clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/python -m jobs.demo --seed $(SEED)

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks

# Breaks the library on purpose, one truth at a time, and sees each truth's test turn red.
mutants: install
	$(BIN)/python -m tests.adatp.mutants.run

# Swift is an S3 server that checks signatures; lmms-eval is the harness of published benchmarks. Neither is a
# dependency, so each gets an environment of its own.
nightly: install $(SWIFT)/installed $(LMMS)/installed
	SWIFT_BIN=$(abspath $(SWIFT)/bin) LMMS_PYTHON=$(abspath $(LMMS)/bin/python) $(BIN)/python -m pytest -m nightly

$(SWIFT)/installed:
	$(PYTHON) -m venv $(SWIFT)
	$(SWIFT)/bin/python -m pip install --quiet --disable-pip-version-check swift==2.38.3
	@touch $@

# This package beside lmms-eval, whose own dependencies are left out: it wants av below 16 and much that is not used.
lmms: $(LMMS)/installed

$(LMMS)/installed: pyproject.toml constraints-lmms.txt
	$(PYTHON) -m venv $(LMMS)
	$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lmms.txt --editable '.[lmms]'
	$(LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
	@touch $@

clean:
	rm -rf $(VENV) $(SWIFT) $(LMMS) demo build
