# Everything a developer does, one word each. Every target works alone, on a fresh machine too.

PYTHON ?= python3
BENCH_FLAGS ?=
STEP_FLAGS ?=
# Here a compiled module that does not build is an error; AUTO does without it, as `pip install` does.
export TORCHP2P_NATIVE ?= ON

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
SANITIZE := build/sanitize
# By its exact pin and first, because the range that the package asks for may pull in another build.
TORCH := $(shell grep '^torch==' constraints.txt)
CSRC := $(shell find csrc -type f)
OPS := $(basename $(notdir $(filter-out torchp2p/ops/_%,$(wildcard torchp2p/ops/*.py))))
OP_TESTS := $(wildcard $(foreach op,$(OPS),tests/test_$(op)*.py))
BENCHES := $(filter-out bench_step,$(basename $(notdir $(wildcard benchmarks/bench_*.py))))

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench bench-steps report gpu-check triton-report cuda-report wheel sanitize clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

setup: $(STAMP)  ## .venv with the package, compiled; again after C++ or dependencies changed

$(STAMP): pyproject.toml constraints.txt setup.py CMakeLists.txt $(CSRC)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## train on street scenes that the package draws itself; ends with a gallery
	$(BIN)/torchp2p train --preset demo $$(test ! -e checkpoints/demo/latest_state.pth || echo --resume)
	$(BIN)/torchp2p translate checkpoints/demo
	$(BIN)/torchp2p evaluate checkpoints/demo

# A process a core, each with one thread. What is timed has the machine for itself.
test: setup  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal --ignore tests/test_speed.py
	$(BIN)/python -m pytest tests/test_speed.py

lint: setup  ## style and types, Python and C++
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(filter-out %.cmake,$(CSRC)) $(shell find tests/cuda_on_cpu -name '*.cpp' -o -name '*.h')

docs: setup  ## guides and the reference made of the docstrings, as pages in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup  ## all ops, rows into benchmarks/results; BENCH_FLAGS=--quick for a glance, --large for 2048x1024
	set -e; for bench in $(BENCHES); do $(BIN)/python -m benchmarks.$$bench $(BENCH_FLAGS); done

bench-steps: setup  ## whole training steps against the original procedure; STEP_FLAGS as of torchp2p bench step
	$(BIN)/python -m benchmarks.bench_step --preset pix2pix $(STEP_FLAGS)
	$(BIN)/python -m benchmarks.bench_step --preset pix2pixhd-512p --size 256x512 $(STEP_FLAGS)

report: setup  ## the tables of the documents and the plots in docs/plots, from the rows
	$(BIN)/python -m benchmarks.report

gpu-check:  ## on a machine with a GPU: build, op tests, sanitizers, benchmarks, with the torch of GPU_PYTHON (python3)
	benchmarks/gpu_check.sh

triton-report: setup  ## registers, spills and traffic of the Triton kernels, compiled for sm_80 and sm_90; needs no GPU
	$(BIN)/python -m benchmarks.triton_report

cuda-report: setup  ## registers, shared memory and spills of every CUDA kernel; needs nvcc, no GPU
	$(BIN)/python -m benchmarks.cuda_report

wheel: setup  ## a wheel in dist/
	rm -rf build/lib.* build/bdist.*
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# libstdc++ beside it, because it is there that the sanitizer looks for what throws exceptions; torch's own compiler
# makes nothing of ours, so what runs through it is left out.
sanitize: setup  ## the op tests with the kernels under AddressSanitizer and UndefinedBehaviorSanitizer
	TORCHP2P_SANITIZE=ON TORCHP2P_CUDA=OFF $(BIN)/python setup.py --quiet build --build-base $(SANITIZE) --build-lib $(SANITIZE)/site
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(foreach library,libasan.so libstdc++.so,$$($(CXX) -print-file-name=$(library)))" \
		$(BIN)/pytest -o pythonpath=$(SANITIZE)/site -k 'not compile and not cuda' $(OP_TESTS)

clean:  ## remove all that was built; .venv stays, and the next setup builds again
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f torchp2p/_C*.so $(STAMP)
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
