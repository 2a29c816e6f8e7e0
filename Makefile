# Every target does its own set-up: a machine with Python 3.11 or later, pip and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

# Installed packages follow these files; a stamp newer than both means there is nothing to do.
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --root-user-action=ignore -c constraints.txt
FIND_PYTHON := for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	test -n "$$python" || { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo demo-once live install dev check audit format test coverage prove bench reference docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN_STAMP) ## the whole platform on recorded history, without network or keys, until Ctrl-C
	@$(BIN)/python -m market_data up --sandbox

demo-once: $(RUN_STAMP) ## five recorded instruments from their sources' wire protocols to features; ends by itself
	@$(BIN)/python -m market_data up --sandbox --once

live: $(RUN_STAMP) ## the whole platform on the real sources, until Ctrl-C
	@$(BIN)/python -m market_data up

install: $(RUN_STAMP) ## create .venv with what the program needs
	@echo "Ready: $(BIN)/market-data --help"

dev: $(DEV_STAMP) ## create .venv with what developing needs
	@echo "Ready: make check test"

check: $(DEV_STAMP) ## lint, format, types, import contracts, size rule, docs
	@echo "ruff"; $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check --diff .
	@echo "mypy"; $(BIN)/mypy --no-error-summary
	@echo "import contracts"; $(BIN)/lint-imports --no-cache >.import-contracts.log 2>&1 \
	  || { cat .import-contracts.log; exit 1; }; rm -f .import-contracts.log
	@echo "size rule, docs"; $(BIN)/pytest -q -n 0 --no-header -m "not prove" tests/test_architecture.py tests/test_docs.py
	@$(BIN)/python tools/audit.py

audit: $(DEV_STAMP) ## ask whether a pinned dependency has a known vulnerability; AUDIT=required: fail without an answer
	@$(BIN)/python tools/audit.py

format: $(DEV_STAMP) ## put the code into its format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

test: $(DEV_STAMP) ## run the tests
	@$(BIN)/pytest -q -n $(WORKERS)

coverage: $(DEV_STAMP) ## run the tests and report what they cover; slower
	@$(BIN)/pytest -q -n $(WORKERS) --cov --cov-report=term:skip-covered

prove: $(DEV_STAMP) ## run the slow proofs: faults, kills, large inputs
	@$(BIN)/pytest -q -n 0 -m prove

bench: $(BENCH_STAMP) ## measure; prints a table and writes bench/results.json; AGAINST=REVISION: in turns with another version
	@$(BIN)/python -m bench $(if $(AGAINST),--against $(AGAINST) --pairs $(or $(PAIRS),20)) $(MODULES)

reference: $(DEV_STAMP) ## regenerate docs/reference from the program
	@$(BIN)/python tools/write_reference.py
	@$(BIN)/python tools/write_alert_rules.py
	@$(BIN)/python tools/write_dashboard.py

docs: reference ## regenerate docs/reference, build the site of the documentation into site/
	@$(BIN)/zensical build --strict --clean

clean: ## remove .venv and caches; never data
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* .cache build dist site

$(BIN)/python:
	@$(FIND_PYTHON); echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) >/dev/null 2>&1 || { \
	  rm -rf $(VENV); `# some distributions leave out ensurepip: pip then comes from outside` \
	  "$$python" -m venv --without-pip $(VENV) && "$$python" -m pip --python $(BIN)/python install -qq pip; }

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the program into $(VENV) (once; a minute or two)"
	@$(PIP) -e . && touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the program and the tools into $(VENV) (once; a minute or two)"
	@$(PIP) -e '.[dev]' && touch $(RUN_STAMP) $@

$(BENCH_STAMP): $(DEV_STAMP)
	@echo "Installing the peers to measure against"
	@$(PIP) -e '.[dev,bench]' && touch $(RUN_STAMP) $(DEV_STAMP) $@
