# make demo, make test, make check, make bench, make fuzz: each sets up everything that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH ?=
KEEP ?=
PYTEST_ARGS ?=
BENCHMARKS := $(if $(BENCH),benchmarks/$(BENCH).py,$(sort $(wildcard benchmarks/*.py)))

SECONDS ?= 60
SURFACE ?=
REPLAY ?=

.PHONY: help demo test check bench fuzz clean
help:
	@echo "make demo    the whole line on real data: build, sign, roll out, roll back (KEEP=1 leaves the server up)"
	@echo "make test    every test (PYTEST_ARGS='-k name' for some)"
	@echo "make check   lint, format, types, import directions"
	@echo "make bench   every benchmark, or one: BENCH=serving"
	@echo "make fuzz    bad input for every surface: SECONDS=60 each, SURFACE=socket for one, REPLAY=file"
	@echo "make clean   remove the environment and everything built"

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (about two minutes, once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Serinus needs Python 3.11 or newer; name one: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@# torch stands in the same command as what depends on it, so that pip takes its CPU build.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		torch==2.13.0 --editable '.[agent,server,client,convert,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m tests.scenarios.demo $(if $(KEEP),--keep)

test: $(STAMP)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/test_imports.py

# Peers that benchmarks measure beside us.
$(VENV)/.peers: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		torch==2.13.0 --editable '.[bench]'
	@touch $@

bench: $(VENV)/.peers
	@for file in $(BENCHMARKS); do $(BIN)/python $$file || exit 1; done

fuzz: $(STAMP)
	@$(BIN)/python -m tests.fuzz $(if $(REPLAY),--replay $(REPLAY),--seconds $(SECONDS) $(foreach name,$(SURFACE),--surface $(name)))

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
