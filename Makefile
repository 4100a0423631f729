# make run    set everything up, then train, export, run and report the quickstart
# make test   set up what the tests need, then run them all
# make test-sanitizers  the native core under the address, undefined-behaviour and thread sanitizers
# make test-arm, make test-avx2   the native core on processors that this one is not, under qemu-user
# make test-avx512                the same for AVX-512, under Bochs
# make test-llama-cpp   llama.cpp's opinion of our files; compiles llama-cpp-python first, some ten minutes
# make test-cluster     the data stage on a local Ray of two workers and a stand-in for Slurm; installs Ray first
# make fuzz   minutes of hostile files for all that reads models; FUZZ_RUNS=1000000 for longer
#
# Everything is installed into .venv; a stamp file there remembers what is installed, so that a second call starts at
# once. Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
# The installation is repeated when one of these changes; changed Python files need none (it is editable).
INPUTS := pyproject.toml constraints.txt CMakeLists.txt native/core.cmake $(shell find native/src -name '*.?pp' | sort)

# Executions a target of `make fuzz`.
FUZZ_RUNS ?= 20000
TEST_PROCESSES ?= 2

.PHONY: run test test-slow test-sanitizers test-llama-cpp test-cluster test-arm test-avx2 test-avx512 fuzz build clean check-tools
.DELETE_ON_ERROR:

run: $(VENV)/installed-run
	$(BIN)/tritwise run recipes/quickstart.toml

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		--durations 15

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

test-sanitizers: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/native/test_native_sanitizers.py

# Minutes each, and Debian's qemu-user or Bochs: not part of `make test`.
test-llama-cpp: $(VENV)/installed-test
	$(BIN)/python -m pip install llama-cpp-python==0.3.36
	$(BIN)/python -m pytest tests/evaluate/test_verification.py -k llama_cpp

test-cluster: $(VENV)/installed-test
	$(PIP) --editable '.[cluster]'
	$(BIN)/python -m pytest tests/data/test_data_cluster.py tests/data/test_data_flow.py

test-arm:
	native/tests/emulate.sh arm

test-avx2:
	native/tests/emulate.sh avx2

test-avx512:
	native/tests/emulate.sh avx512

fuzz: $(VENV)/installed-fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz --runs $(FUZZ_RUNS)

# The native core alone, after a change to it that should not touch anything else.
build: $(VENV)/created
	$(PIP) --no-deps --editable .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed-run: $(VENV)/created $(INPUTS)
	$(PIP) --editable '.[train,report]'
	@touch $@

# What the tests need holds all that a run needs.
$(VENV)/installed-test: $(VENV)/created $(INPUTS)
	$(PIP) --editable '.[test]'
	@touch $(VENV)/installed-run $@

$(VENV)/installed-fuzz: $(VENV)/created $(INPUTS)
	$(PIP) --editable '.[fuzz]'
	@touch $(VENV)/installed-run $(VENV)/installed-test $@

$(VENV)/created:
	@$(MAKE) --no-print-directory check-tools
	$(PYTHON) -m venv $(VENV)
	@touch $@

check-tools:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) was not found: Tritwise needs Python 3.11 or newer (Debian: apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: Tritwise needs 3.11 or newer; choose one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments (Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { \
	  echo "Python's C headers are missing, the native core needs them (Debian: apt install python3-dev)"; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
	  echo "no C++ compiler was found, the native core needs one (Debian: apt install g++)"; exit 1; }
