# Six ways to send an email. `make help` is the table of contents.
# Needs GNU make 3.81 or newer and Python 3.11 or newer; everything else goes into .venv.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input install

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run-%: $(VENV)/ready ## run strategy 1 to 6; also ROLE=server, ROLE=worker, WORKERS=3, PORT=0
	@exec $(PY) -m common.run $*

services: $(VENV)/ready ## the embedded services alone
	@exec $(PY) -m common.run services

test: $(VENV)/ready-dev ## all tests, on the embedded services
	$(PY) -m pytest --numprocesses 4 --dist loadfile $(PYTEST)

check: $(VENV)/ready-dev ## what CI runs: format, lint, types, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest --numprocesses 4 --dist loadfile $(PYTEST)

compare: $(VENV)/ready-dev ## the six side by side; N=200, CLIENTS=10, LATENCY_MS=100, STRATEGIES="1 5"
	@exec $(PY) -m lab.compare

faults: $(VENV)/ready-dev ## kill things, and count; KILLS=10, SEED=2016, RATE=40, STRATEGIES="5 6", FAULTS=worker-kill
	@exec $(PY) -m lab.faults

bench: $(VENV)/ready-dev ## how fast the parts are, each beside a reference of the same run
	@exec $(PY) -m lab.bench

tables: $(VENV)/ready-dev ## write what compare, faults and bench have measured into the READMEs
	@$(PY) -m lab.tables

diff-%: ## what strategy 2 to 6 changes in the strategy before
	@case $* in [2-9]) ;; *) false ;; esac && before=$$(ls -d $$(($* - 1))_* 2>/dev/null) && after=$$(ls -d $*_* 2>/dev/null) || \
	  { echo "there is no strategy $* with one before it" >&2; exit 2; }; \
	diff -ruN --exclude=__pycache__ --exclude=README.md $$before $$after || true

format: $(VENV)/ready-dev ## format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: $(VENV)/ready-dev ## renew the pinned versions in requirements*.lock
	$(PIP) --quiet uv
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --output-file requirements.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra dev --constraint requirements.lock \
	  --output-file requirements-dev.lock
UV := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'

clean: ## remove .venv, caches and the data of the embedded services
	rm -rf $(VENV) .data .hypothesis .mypy_cache .pytest_cache .ruff_cache tests/interop/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is made once, and again when the pinned versions change. An install that was cut off starts anew.
$(VENV)/ready: requirements.lock
	@test ! -L $(VENV) || { echo "$(VENV) is a link to somewhere else: remove it" >&2; exit 2; }
	@echo "Setting up $(VENV), once; it takes a minute or less"
	@python=$$(for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done) && \
	  test -n "$$python" || { echo "This needs Python 3.11 or newer; name one with PYTHON=…" >&2; exit 2; }; \
	  $$python -m venv --clear $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PIP) --require-hashes -r requirements.lock
	@touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	@echo "Adding the tools for tests, checks and experiments"
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: help services test check compare faults bench tables format lock clean
.DEFAULT_GOAL := help
