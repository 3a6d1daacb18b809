# Everything from a fresh clone: `make demo`, `make test`. Another interpreter: `make test PYTHON=python3.12 VENV=.venv312`.

PYTHON ?= python3
VENV ?= .venv
PRESET ?= nano
TIME ?= 60
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install lint types test test-full fuzz demo clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml CMakeLists.txt $(wildcard runtime/csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[training,dev]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile

test-full: test
	$(BIN)/python -m pytest -m "slow and not gpu"

# TIME seconds a target; logs, corpora and failing inputs lie in build/fuzz. The native target needs clang++.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz/run_all.py --seconds $(TIME)

demo: $(INSTALLED)
	PATH="$(abspath $(BIN)):$$PATH" sh examples/demo.sh $(PRESET)

clean:
	rm -rf $(VENV) build dist demo
