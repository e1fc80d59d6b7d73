# Two commands: `make bench` measures this machine and writes the report, `make test` checks the code. Both set up
# .venv first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup bench test test-triton-3.6 lint resolve dry-gpu gpu gpu-smoke gpu-safety clean

PYTHON ?= python3
CONSTRAINTS := constraints.txt
BIN := .venv/bin
# PyTorch's own wheels: TORCH=cpu those without CUDA, TORCH=cu126 those for older drivers. Without it the package index
# decides. The index may be a mirror of theirs.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl
TORCH_OPTION := $(if $(TORCH),--extra-index-url $(TORCH_INDEX)/$(TORCH))
ifeq ($(TORCH),cpu)
export CUDA_VISIBLE_DEVICES :=
endif
# Only a machine whose driver answers gets the CUDA extra, for the CUDA version that torch was built with. nvidia-smi is
# asked where set-up uses this, and not before: one that hangs takes the 20 s.
CUDA_EXTRA = $(if $(filter cpu,$(TORCH)),,$(shell timeout -k 2 20 nvidia-smi >/dev/null 2>&1 && echo ',$(if $(filter cu12%,$(TORCH)),cu12,cu13)'))
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(CONSTRAINTS) $(TORCH_OPTION) --editable
# A stamp for what is installed: changing a requirement makes it anew, and nothing is done twice.
STAMP := $(shell { cat pyproject.toml $(CONSTRAINTS) Makefile; echo '$(TORCH)'; } | cksum | cut -d' ' -f1)
READY := .venv/ready-bench-$(STAMP)
READY_TO_TEST := .venv/ready-test-$(STAMP)
BENCH_OPTIONS ?=
ON_CPU = $(if $(findstring --device cpu,$(subst =, ,$(BENCH_OPTIONS))),--device cpu)
# Published GPUs that stand beside this machine in the report.
SILICON ?= a100_sxm h100_sxm h200_sxm b200_sxm l40s rtx_pro_6000_server
REPORT ?= build/report.html

help:
	@echo "make bench   set up, measure this machine, write $(REPORT), say TP or PP (BENCH_OPTIONS='--tokens 1,8' narrows it)"
	@echo "make test    set up, lint, check types, run every test that this machine can run, and dry-gpu"
	@echo "make test-triton-3.6   compile the kernels and interpret them with the oldest Triton that they run on"
	@echo "make resolve check that the requirements resolve on every Python from the package index alone; part of make test"
	@echo "make dry-gpu     what a GPU would run, on a simulated one: steps, launches, times against true ones (PLANT=list: faults)"
	@echo "make gpu-smoke   on a GPU, 100 s: versions, one case of each implementation, one call under ncu and under the sanitizer"
	@echo "make gpu         on a GPU, at most 400 s: correctness, the suites, DRAM counters, clocks; into OUT (build/gpu)"
	@echo "make gpu-safety  on a GPU, at most 380 s: ranks that share it, compute-sanitizer over our kernels"
	@echo "make clean   remove the environments and build"

setup: $(READY_TO_TEST)

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v.major}.{v.minor} is too old: 3.11 or newer is needed; make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) '.[silicon$(CUDA_EXTRA)]'
	@$(BIN)/python -c 'import aiconfigurator_core' 2>/dev/null || \
		echo "aiconfigurator-core has no wheel for this machine: the report goes without published times of other GPUs"
	touch $@

$(READY_TO_TEST): $(READY)
	$(INSTALL) '.[dev,silicon]'
	touch $@

bench: $(READY)
	@json=build/$$($(BIN)/python -m suites name $(ON_CPU)).json; failed=0; \
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
	$(BIN)/python -m tests.simulated_gpu.dry_run

# The oldest Triton that the kernels run on, in an environment of its own. Its interpreter takes no numpy from 2.4 on.
# torch's CUDA build asks for a newer Triton, so this one goes in past pip's resolver. sm_86 and sm_89 are like sm_80.
OLD_TRITON := triton==3.6.0
OLD_BIN := .venv-triton36/bin
OLD_NEEDS := requirements-triton-3.6.txt
READY_OLD := .venv-triton36/ready-$(shell cat $(OLD_NEEDS) $(CONSTRAINTS) Makefile | cksum | cut -d' ' -f1)
OLD_TESTS := test_compile.py test_gemm_compile.py test_attention_compile.py test_disassembly.py test_interpreted.py \
	test_decode_attention.py test_gate_up.py test_swiglu.py inspection/test_loop.py inspection/test_machine_code.py \
	configs/test_compiler.py

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

# Files whose words are data; results and builds are among them.
UNSPELLED := ./.*,./build,./reports/data,./suites/gate/launches,*.egg-info,LICENSE
lint: $(READY_TO_TEST)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/codespell --skip '$(UNSPELLED)'

resolve: $(READY_TO_TEST)
	$(BIN)/python -m pytest tests/requirements -v

# PLANT=name plants a fault, which has to be found: exit status 1, and the problem that names it. RECORD=1 writes the
# launches that were seen for the warm step of `make gpu`.
PLANT ?=
RECORD ?=
dry-gpu: $(READY_TO_TEST)
	$(BIN)/python -m tests.simulated_gpu.dry_run $(if $(PLANT),--plant $(PLANT)) $(if $(RECORD),--record)

# No set-up here: a machine with a GPU may have no network, and has its own torch. Where something is missing it says what.
# The first call on a GPU is gpu-smoke, the second gpu; each says before it begins what it will do, and for how long.
gpu: PROFILE := evidence
gpu: OUT ?= build/gpu
gpu-smoke: PROFILE := smoke
gpu-smoke: OUT ?= build/gpu-smoke
gpu-safety: PROFILE := safety
gpu-safety: OUT ?= build/gpu-safety
gpu gpu-smoke gpu-safety:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make $@: Python 3.11 or newer is needed; make $@ PYTHON=python3.12"; exit 1; }; \
	$(PYTHON) -m suites.gate --profile $(PROFILE) --out "$(OUT)"

clean:
	rm -rf .venv .venv-triton36 build
