# Two commands do all the set-up: `make demo` and `make test`. Both stand on `make setup`, which does nothing the
# second time: .venv/.ready is newer than what it was made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HISTOKIN_DATA ?= $(abspath ../shared/data)

.PHONY: help setup demo test lint slow realdata torture bench clean

help:
	@echo "make demo      generated slides, everything run on them (about 5 minutes)"
	@echo "make test      the default suite        make lint      format, rules, types, layers"
	@echo "make slow      slow tests               make realdata  the long runs on real data"
	@echo "make torture   kills at many points     make bench     the benchmarks"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt tools/check_install.py
	$(PYTHON) -c 'import sys; sys.exit("histokin needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python tools/check_install.py
	touch $@

demo: setup
	$(BIN)/histokin demo --out demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

slow: setup
	$(BIN)/python -m pytest -m slow

realdata: setup
	$(BIN)/python -m pytest -m 'realdata or long'

torture: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m torture

bench: setup
	for b in benchmarks/bench_*.py; do $(BIN)/python $$b || exit 1; done

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .hypothesis
