# Two commands: `make bench` measures this machine, `make test` checks the code. Both set up .venv first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup bench test lint clean

PYTHON ?= python3
CONSTRAINTS := constraints.txt
BIN := .venv/bin
# Only a machine whose driver answers gets the CUDA extra, for the CUDA version that torch was built with.
CUDA := $(shell nvidia-smi >/dev/null 2>&1 && echo cu13)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(CONSTRAINTS) --editable
# A stamp for what is installed: changing a requirement makes it anew, and nothing is done twice.
STAMP := $(shell cat pyproject.toml $(CONSTRAINTS) Makefile | cksum | cut -d' ' -f1)
READY := .venv/ready-bench-$(STAMP)
READY_TO_TEST := .venv/ready-test-$(STAMP)
BENCH_OPTIONS ?=

help:
	@echo "make bench   set up, measure this machine, show the numbers (BENCH_OPTIONS='--tokens 1,8' narrows it)"
	@echo "make test    set up, lint, check types, run every test that this machine can run"
	@echo "make clean   remove .venv and build"

setup: $(READY_TO_TEST)

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v.major}.{v.minor} is too old: 3.11 or newer is needed; make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) '.[$(CUDA)]'
	touch $@

$(READY_TO_TEST): $(READY)
	$(INSTALL) '.[dev]'
	touch $@

bench: $(READY)
	@json=build/$$($(BIN)/python -m suites name).json; \
	$(BIN)/python -m pytest suites/ --benchmark-json="$$json" --benchmark-quiet $(BENCH_OPTIONS); \
	$(BIN)/python -m reports show "$$json"

test: lint
	$(BIN)/python -m pytest tests

lint: $(READY_TO_TEST)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf .venv build
