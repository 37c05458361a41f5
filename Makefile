# make demo, test, check, bench, faults, fuzz, soak, sbom: each sets up everything that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH ?=
KEEP ?=
PYTEST_ARGS ?=
# One process for each core; a file's tests stay together, since they share what they build.
WHOLE_SUITE := -n auto --dist loadfile
FAULTS ?=
SOAK ?=
BENCHMARKS := $(if $(BENCH),benchmarks/$(BENCH).py,$(sort $(wildcard benchmarks/*.py)))

SECONDS ?= 60
SURFACE ?=
REPLAY ?=
SUITE ?=
ATTACKS ?=

.PHONY: help demo test check bench faults fuzz soak security conformance clean
help:
	@echo "make demo    the whole line on real data: build, sign, roll out, roll back (KEEP=1 leaves the server up)"
	@echo "make test    every test (PYTEST_ARGS='-k name' for some)"
	@echo "make check   lint, format, types, import directions"
	@echo "make bench   every benchmark, or one: BENCH=serving"
	@echo "make faults  every fault at every point (FAULTS='--case NAME --point N' for one); build/faults.json"
	@echo "make soak    1,000 updates and 10,000,000 predictions in one process; build/soak.json"
	@echo "make fuzz    bad input for every surface: SECONDS=60 each, SURFACE=socket for one, REPLAY=file"
	@echo "make security  attacks on devices, server, broker and enrolment (ATTACKS='--attack NAME' for one); build/security.json"
	@echo "make conformance SUITE=folder   the public tuf-conformance suite against the agent's client"
	@echo "make sbom    bills of materials of every extra, CycloneDX 1.6; build/sbom/"
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
	@$(BIN)/python -m pytest $(or $(PYTEST_ARGS),$(WHOLE_SUITE))

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

# Peers of the serving benchmark: an environment each, since their pins exclude one another. One that
# cannot be installed is reported by the benchmark with the reason.
PEERS := .venv-peers
PEER_STAMPS := $(patsubst %,$(PEERS)/%/.installed,asgi bentoml litserve mlserver)
$(PEERS)/%/.installed: benchmarks/serving_peers/%.txt
	@echo "Setting up $(PEERS)/$* (once) ..."
	@rm -rf $(PEERS)/$* && $(PYTHON) -m venv $(PEERS)/$*
	@if $(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $< 2> $(PEERS)/$*/pip.log; then touch $@; \
		else tail -n 1 $(PEERS)/$*/pip.log > $(PEERS)/$*/failed; fi

bench: $(VENV)/.peers $(if $(filter-out serving,$(BENCH)),,$(PEER_STAMPS))
	@for file in $(BENCHMARKS); do $(BIN)/python $$file || exit 1; done

faults: $(STAMP)
	@$(BIN)/python -m tests.faults $(FAULTS)

soak: $(STAMP)
	@$(BIN)/python -m tests.faults.soak $(SOAK)

fuzz: $(STAMP)
	@$(BIN)/python -m tests.fuzz $(if $(REPLAY),--replay $(REPLAY),--seconds $(SECONDS) $(foreach name,$(SURFACE),--surface $(name)))

security: $(STAMP)
	@$(BIN)/python -m tests.security $(ATTACKS)

conformance: $(STAMP)
	@$(BIN)/python -m tests.security.conformance "$(SUITE)"

sbom: $(STAMP)
	@$(BIN)/python -m converters.bom build/sbom

clean:
	rm -rf $(VENV) $(PEERS) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
