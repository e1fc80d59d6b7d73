# Two commands: `make bench` measures this machine and writes the report, `make test` checks the code. Both set up
# .venv first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup bench test test-triton-3.6 lint gpu clean

PYTHON ?= python3
CONSTRAINTS := constraints.txt
BIN := .venv/bin
# Only a machine whose driver answers gets the CUDA extra, for the CUDA version that torch was built with.
CUDA := $(shell nvidia-smi >/dev/null 2>&1 && echo ',cu13')
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(CONSTRAINTS) --editable
# A stamp for what is installed: changing a requirement makes it anew, and nothing is done twice.
STAMP := $(shell cat pyproject.toml $(CONSTRAINTS) Makefile | cksum | cut -d' ' -f1)
READY := .venv/ready-bench-$(STAMP)
READY_TO_TEST := .venv/ready-test-$(STAMP)
BENCH_OPTIONS ?=
# Published GPUs that stand beside this machine in the report.
SILICON ?= a100_sxm h100_sxm h200_sxm b200_sxm l40s rtx_pro_6000_server
REPORT ?= build/report.html

help:
	@echo "make bench   set up, measure this machine, write $(REPORT), say TP or PP (BENCH_OPTIONS='--tokens 1,8' narrows it)"
	@echo "make test    set up, lint, check types, run every test that this machine can run"
	@echo "make test-triton-3.6   compile the kernels and interpret them with the oldest Triton that they run on"
	@echo "make gpu     with the python3 that is there, under 9 minutes: correctness, sanitizer, counters, clocks, suite; into OUT (build/gpu)"
	@echo "make clean   remove the environments and build"

setup: $(READY_TO_TEST)

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v.major}.{v.minor} is too old: 3.11 or newer is needed; make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) '.[silicon$(CUDA)]'
	touch $@

$(READY_TO_TEST): $(READY)
	$(INSTALL) '.[dev,silicon]'
	touch $@

bench: $(READY)
	@json=build/$$($(BIN)/python -m suites name).json; failed=0; \
	$(BIN)/python -m pytest suites/ --benchmark-json="$$json" --benchmark-quiet $(BENCH_OPTIONS) || failed=$$?; \
	$(BIN)/python -m reports show "$$json" || failed=$$?; \
	mkdir -p build/silicon; published=(); for system in $(SILICON); do \
		$(BIN)/python -m reports import aiconfigurator --system $$system -o build/silicon/$$system.json >/dev/null || break; \
		published+=(build/silicon/$$system.json); done; \
	$(BIN)/python -m reports html "$$json" "$${published[@]}" -o $(REPORT) || failed=$$?; exit $$failed

# Tests of a file stay on one worker, so that they share what its fixtures make. tests/gpu has the GPU to itself.
WORKERS ?= 2
test: lint
	$(BIN)/python -m pytest tests --ignore tests/gpu -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest tests/gpu

# The oldest Triton that the kernels run on, in an environment of its own. Its interpreter takes no numpy from 2.4 on.
# torch's CUDA build asks for a newer Triton, so this one goes in past pip's resolver. sm_86 and sm_89 are like sm_80.
OLD_TRITON := triton==3.6.0
OLD_BIN := .venv-triton36/bin
OLD_NEEDS := requirements-triton-3.6.txt
READY_OLD := .venv-triton36/ready-$(shell cat $(OLD_NEEDS) $(CONSTRAINTS) Makefile | cksum | cut -d' ' -f1)
OLD_TESTS := test_compile.py test_gemm_compile.py test_attention_compile.py test_disassembly.py test_interpreted.py \
	test_decode_attention.py test_gate_up.py test_swiglu.py inspection/test_loop.py inspection/test_machine_code.py \
	tuning/test_compiler.py

$(READY_OLD):
	$(PYTHON) -m venv --clear .venv-triton36
	sed '/^numpy==/d; /^triton==/d' $(CONSTRAINTS) > .venv-triton36/constraints.txt
	$(OLD_BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint .venv-triton36/constraints.txt --requirement $(OLD_NEEDS)
	$(OLD_BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps $(OLD_TRITON)
	touch $@

test-triton-3.6: $(READY_OLD)
	$(OLD_BIN)/python -m pytest $(addprefix tests/kernels/,$(OLD_TESTS)) -n $(WORKERS) --dist loadfile -k "not sm_86 and not sm_89"
	$(OLD_BIN)/python -m kernels inspect --arch sm_90 --kernel gate_up
	$(OLD_BIN)/python -m kernels inspect --arch sm_103 --kernel read

lint: $(READY_TO_TEST)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# No set-up here: a machine with a GPU may have no network, and has its own torch. Where something is missing it says what.
OUT ?= build/gpu
gpu:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make gpu: Python 3.11 or newer is needed; make gpu PYTHON=python3.12"; exit 1; }; \
	$(PYTHON) -m suites.gate --out "$(OUT)"

clean:
	rm -rf .venv .venv-triton36 build
