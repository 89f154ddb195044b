# Every target does its own set-up: `make test` is all that a fresh clone needs.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# TRL and what it brings have no place in the environment that the tests run in.
BENCH := .venv-bench

# pip reads these: exact versions for what is installed and for what builds it.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
# Threads that wait spinning are many times slower wherever something else runs, too.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow check format bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

quickstart: $(INSTALLED) ## train, evaluate and explain a small model on legal questions
	$(BIN)/judicaita quickstart

# One thread a worker, since the workers share the cores; the whole run has ten minutes.
test: $(INSTALLED) ## run the tests (not the slow ones)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS) --session-timeout=600

test-slow: $(INSTALLED) ## run the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(JOBS) --timeout=1800

check: $(INSTALLED) ## lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## repair what ruff can repair, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH)/.installed ## compare with TRL: 45 minutes on a quiet machine
	$(BENCH)/bin/python benchmarks/engine

docs: $(INSTALLED) ## write docs/configuration.md from the configuration classes
	$(BIN)/python -m judicaita.training.reference

clean: ## remove the virtual environments and all caches; runs and checkpoints stay
	rm -rf $(VENV) $(BENCH) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "judicaita needs Python 3.11 or newer, and $(PYTHON) is" \
			"$$($(PYTHON) --version 2>/dev/null || echo 'not to be found')." \
			"Name one that is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
		exit 2; }
	@echo "Installing into $(VENV): minutes, most of them for torch."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }
	@$(BIN)/python -m pip install --quiet --editable '.[dev,eval]'
	@touch $@

$(BENCH)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(BENCH): minutes, most of them for torch."
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH) || { rm -rf $(BENCH); exit 2; }
	@$(BENCH)/bin/python -m pip install --quiet --editable '.[bench,eval]'
	@touch $@
