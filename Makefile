# make demo   trains, judges and samples a small diffusion language model, and writes a report: about 5 minutes
# make test   style and tests
# make types  pyright
# Each target sets up what it needs in .venv; nothing else has to be prepared but Python 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin
DEMO_HOME ?= demo
# takes a CPU build of torch where one is offered, and keeps other packages from replacing it
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types clean

demo: .venv/installed
	REMASK_HOME=$(DEMO_HOME) $(BIN)/remask train quickstart
	REMASK_HOME=$(DEMO_HOME) $(BIN)/remask evaluate last
	REMASK_HOME=$(DEMO_HOME) $(BIN)/remask sample last --count 3
	REMASK_HOME=$(DEMO_HOME) $(BIN)/remask health last
	REMASK_HOME=$(DEMO_HOME) $(BIN)/remask report last --html $(DEMO_HOME)/report.html

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyright

.venv/installed: pyproject.toml constraints.txt | .venv/created
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/created
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/installed

.venv/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "remask needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	touch $@

clean:
	rm -rf .venv demo .pytest_cache .ruff_cache .hypothesis
