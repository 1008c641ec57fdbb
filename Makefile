# Two commands do everything: `make book` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
SCALE ?= smoke
DEVICE ?= cpu
BIN := .venv/bin
# Idle OpenMP threads that spin slow every other process down on a small machine.
export OMP_WAIT_POLICY := PASSIVE
export VOXUDA_BOOK := 1
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
SOURCES := $(shell find voxuda book -type f -not -name '*.pyc') $(NOTEBOOKS) _config.yml _toc.yml

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

venv: .venv/.done ## prepare .venv with pinned versions

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	touch $@

book: _build/.done ## execute the notebooks and build the HTML
	@echo "open _build/html/index.html"

_build/.done: .venv/.done $(SOURCES)
	$(BIN)/python book/build.py --scale smoke
	touch $@

notebooks: venv ## execute the notebooks in place (SCALE=smoke|laptop DEVICE=cpu|cuda)
	$(BIN)/python book/build.py --scale $(SCALE) --device $(DEVICE) --in-place --notebooks-only

test: venv ## lint, type check, unit tests, notebooks through nbval, checks of the book
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest
	$(BIN)/pytest -p no:cacheprovider -o addopts= --nbval --nbval-current-env --nbval-cell-timeout=120 notebooks

lab: venv ## open JupyterLab on the right kernel
	env -u VOXUDA_BOOK $(BIN)/jupyter lab notebooks

clean: ## remove built pages, keep .venv
	rm -rf _build

.PHONY: help venv book notebooks test lab clean
