# Set up, test and run. `make` alone lists the targets.
#
# `make setup` finds a working Python, makes .venv and installs the project into it with the releases in constraints.txt. Afterwards it
# does nothing until pyproject.toml or constraints.txt changes. To choose a Python: make PYTHON=/path/to/python3.12

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Without byte code on disk, `import lightning` takes 24 s in every process instead of 7.
unexport PYTHONDONTWRITEBYTECODE
# Do not install into an environment that happens to be active.
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-more lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with all dependencies (5.3 GB on Linux, mostly torch's CUDA libraries)

demo: $(READY)  ## the whole road on real pictures: runs/demo/index.html
	@$(BIN)/multimodal demo $(ARGS)

# A file's tests stay together, because they share fixtures.
test: $(READY)  ## run the tests, with the same inputs each time; some: make test ARGS=tests/search
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(READY)  ## run the tests that take more than ten seconds each, which `make test` leaves out
	@$(BIN)/python -m pytest -n auto --dist worksteal --slow -m slow $(ARGS)

ROUNDS ?= 5
test-more: $(READY)  ## search for inputs on which a property fails, with new inputs each time; longer: make test-more ROUNDS=100
	@$(BIN)/python -m pytest -n auto --dist worksteal -m hypothesis --hypothesis-profile fresh --rounds $(ROUNDS) --timeout 0 $(ARGS)

lint: $(READY)  ## style, types and the contracts between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

clean:  ## remove the environment and caches; keeps runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamp is removed before anything changes, and written when all is done. An environment without it is incomplete, perhaps with a
# package that only looks installed, so it is made again: uv caches its downloads, so that takes seconds.
# Names on PATH may not work (a version manager's shims), or lack venv (Debian's Python): each candidate is tried.
$(READY): pyproject.toml constraints.txt
	@if [ ! -e $@ ]; then \
	  rm -rf $(VENV); \
	  found=; \
	  for python in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.13 python3.11 python3 python); do \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; then \
	      found=$$python; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: $(or $(PYTHON),no python on PATH) $(if $(PYTHON),does not run as,is a) Python 3.11, 3.12 or 3.13 with venv." \
	      "Install one, or name one: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  echo "making $(VENV) with $$found ($$("$$found" --version))"; \
	  "$$found" -m venv $(VENV) || exit 1; \
	fi; \
	rm -f $@; \
	extras=dev; \
	npm --version >/dev/null 2>&1 || extras=dev,npm; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || exit 1; \
	$(BIN)/uv pip install --python $(BIN)/python --editable ".[$$extras]" -c constraints.txt || exit 1; \
	touch $@
