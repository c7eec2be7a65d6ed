# `make demo` and `make test` are all that a new user needs: each makes .venv
# if it is missing. Needs python3 (3.11 is tested) with its venv module.
#
# PyPI's torch for Linux may contain CUDA (several GB). PIP_FLAGS passes options
# to pip, e.g. the index of CPU builds that pytorch.org names.

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check $(PIP_FLAGS) \
	-c constraints.txt
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint types bench clean

help:
	@echo 'make demo   train a small network on molecules, offline'
	@echo 'make test   run the tests (ARGS=... goes to pytest)'
	@echo 'make fuzz   random calls and files (ARGS=... goes to tests/helpers/fuzz.py)'
	@echo 'make lint   check the style'
	@echo 'make types  check the types'
	@echo 'make bench  run the benchmarks'
	@echo 'make clean  remove what make made, .venv included'

$(PY):
	$(PYTHON) -m venv $(VENV)

$(READY): setup.cfg pyproject.toml constraints.txt | $(PY)
	$(PIP) -e '.[test]'
	touch $@

demo: $(READY)
	$(PY) examples/qm9.py --demo $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto $(ARGS) tests

fuzz: $(READY)
	$(PY) tests/helpers/fuzz.py $(ARGS)

lint: $(READY)
	$(PIP) -q ruff
	$(PY) -m ruff check .

types: $(READY)
	$(PIP) -q mypy
	$(PY) -m mypy

bench: $(READY)
	@set -e; for f in construct conv lattice linear neighbors pointcloud \
			quotient_elu; do \
		echo "== $$f"; $(PY) -m benchmarks.$$f $(ARGS); \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
