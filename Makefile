# Everything runs in a virtual environment that make creates beside this file.
#   make demo   the main job, end to end, on real text, on a CPU
#   make test   the whole test suite
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two workers: the suite is written for a machine of two cores.
WORKERS ?= 2

.PHONY: demo test lint types check install clean help

help:
	@echo "make demo     train, quantize, evaluate with proof, verify and audit, on a CPU, in minutes"
	@echo "make test     the test suite"
	@echo "make lint     ruff and mypy"
	@echo "make check    lint and test"
	@echo "make clean    remove the environment and everything that runs left behind"

install: $(STAMP)

# Reinstalled only when what is to be installed changed, so that a second run starts at once. The bytecode is
# written here, as for any installed package: where Python may not write it, each start would compile anew.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "referee needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || { echo "== creating the environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "== installing the program and its dependencies (the first time takes some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@$(BIN)/python -m compileall -q audit harness reference_model
	@touch $@

demo: $(STAMP)
	@$(BIN)/referee demo $(ARGS)

test: $(STAMP)
	@echo "== running the tests with $(WORKERS) workers"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(STAMP)
	@echo "== ruff"
	@$(BIN)/ruff check .
	@echo "== mypy"
	@$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
