# Everything from nothing but Python, make and a package index. Every target below sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 7

.PHONY: install demo test check bench mutants nightly clean

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

nightly: install
	$(BIN)/python -m pytest -m nightly

clean:
	rm -rf $(VENV) demo build
