# Two commands do everything: `make book` and `make test`. `make help` lists the rest; `make unit` is the quick one.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
SCALE ?= smoke
DEVICE ?= cpu
BIN := .venv/bin
# Idle OpenMP threads that spin slow every other process down on a small machine.
export OMP_WAIT_POLICY := PASSIVE
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
# Two at a time, each with one thread (tests/conftest.py says so for tests). What one worker has left, another takes; cells of a
# notebook stay together. -rs: what is skipped says why.
TESTS := $(BIN)/pytest -n 2 --dist worksteal -rs
# `make book` runs the notebooks with every instruction the processor has; nbval runs them again with the fewest, so each change
# sees two instruction sets, on any x86 processor. AVX2 took nbval 0.87 of the time, but is all that many processors have.
NBVAL := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 VOXUDA_BOOK=1 \
	$(BIN)/pytest -p no:cacheprovider -o addopts= --nbval --nbval-current-env --nbval-cell-timeout=120
SOURCES := $(shell find voxuda book results -type f -not -path '*/__pycache__/*') $(NOTEBOOKS) _config.yml _toc.yml

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

venv: .venv/.done ## prepare .venv with pinned versions

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11, 5) else "Python 3.11.5 or newer is needed")'
	@echo "preparing .venv, some minutes the first time ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test]'
	@touch $@

book: _build/.done ## run the notebooks and build the HTML
	@echo "open $(CURDIR)/_build/html/index.html"

_build/.done: .venv/.done $(SOURCES)
	@$(BIN)/python book/build.py --scale smoke
	@touch $@

notebooks: venv ## run the notebooks in place (SCALE=smoke|laptop|paper DEVICE=cpu|cuda)
	$(BIN)/python book/build.py --scale $(SCALE) --device $(DEVICE) --in-place --notebooks-only

notebook: venv ## one chapter: run it if it changed, and compare with its stored outputs (N=03)
	$(if $(N),,$(error say which, such as: make notebook N=03))
	$(BIN)/python book/build.py --only '$(N)'
	$(NBVAL) notebooks/$(N)*.ipynb

unit: venv ## the package alone, in little more than a minute: no notebooks, no pages, no trainings but one
	$(TESTS) -m "not slow and not training" $(addprefix --ignore=tests/,book browser notebooks trust)

test: book ## lint, types, layers, tests, the built pages in a browser, notebooks through nbval
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS) -m "not slow" --durations 25
	$(NBVAL) -n 2 --dist loadscope notebooks

weekly: book ## the slow trials that `make test` leaves out, then `make trust`
	$(TESTS) -m slow
	$(MAKE) trust

bench: venv ## time the package beside its peers, into results/benchmarks
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/pytest benchmarks -s -p no:cacheprovider

trust: venv ## kill runs, fill disks, damage files, start jobs in pairs: figures into results/trust
	mkdir -p _build/trust # not among the results at once, lest the later trials find the repository changed
	for trial in interrupt fuzz full_disk pairs; do $(BIN)/python -m tests.trust.$$trial --out _build/trust/$$trial.json || exit 1; done
	cp _build/trust/*.json results/trust

lock: venv ## every pinned version with its hashes, into requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[supply]'
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header -c constraints.txt --extra book --extra test -o requirements.lock pyproject.toml

audit: lock ## known weaknesses of the pinned versions (asks a database over the network)
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip

lab: venv ## open JupyterLab on the right kernel
	$(BIN)/jupyter lab notebooks

clean: ## remove the built pages, keep .venv
	rm -rf _build

.PHONY: help venv book notebooks notebook unit test weekly bench trust lock audit lab clean
