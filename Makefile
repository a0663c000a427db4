# Set up, test and run. `make` alone lists what there is.
#
# `make setup` finds a Python that runs, makes .venv and installs the project into it with the releases of constraints.txt; once that
# is done it does nothing until one of the two files changes. Another Python: make PYTHON=/path/to/python3.12

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Without byte code on disk, `import lightning` takes 24 s in every process instead of 7.
unexport PYTHONDONTWRITEBYTECODE
# An environment that happens to be active is not the one to install into.
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-more lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with everything in it (5.3 GB on Linux, most of it torch's CUDA libraries)

demo: $(READY)  ## the whole road on real pictures: runs/demo/index.html
	@$(BIN)/multimodal demo $(ARGS)

# A file's tests stay together: they share what is made for them.
test: $(READY)  ## pass the tests, the same each time; some: make test ARGS=tests/search
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

ROUNDS ?= 5
test-more: $(READY)  ## search for inputs on which a property fails, others each time; longer: make test-more ROUNDS=100
	@$(BIN)/python -m pytest -n auto --dist worksteal -m hypothesis --hypothesis-profile fresh --rounds $(ROUNDS) --timeout 0 $(ARGS)

lint: $(READY)  ## style, types and the contracts between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamp goes before anything is changed and comes back when all is done. An environment without it was left half-made, maybe in
# the middle of a package that now looks installed, so it is made anew: uv keeps what it fetched, and that takes seconds.
# Names on PATH may be dead (a version manager's shims), or a Python without venv (Debian's): each candidate has to prove itself.
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
