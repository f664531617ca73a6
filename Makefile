# Six ways to send an email. `make help` lists the commands.
# You need GNU make 3.81 or newer and Python 3.11 or newer; everything else is installed into .venv.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input install $(if $(WHEELHOUSE),--no-index --find-links $(WHEELHOUSE))

# Keep the compiled modules even where the environment forbids it (many containers do): each program starts faster.
export PYTHONDONTWRITEBYTECODE :=

# What an engine of its own needs is installed when it is first asked for.
ENGINE := $(if $(filter jetstream,$(or $(LOG),$(shell sed -n 's/^LOG=//p' .env 2>/dev/null))),$(VENV)/ready-jetstream)

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { sub("break-%", "break-NAME", $$1); sub("%", "N", $$1); printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run-%: $(VENV)/ready $(ENGINE) ## run strategy 1 to 6: make run-4, make run-4 ROLE=server, make run-5 WORKERS=3, make run-1 PORT=0
	@exec $(PY) -m common.processes.run $*

ifeq ($(QUEUE),rabbitmq)
run-5 services example-pictures: $(VENV)/ready-rabbitmq
endif

example-first-job: $(VENV)/ready ## a first program on the queue: create jobs on a page and watch them
	@exec $(PY) -m common.processes.run examples.first_job

example-links: $(VENV)/ready-examples ## check the links of a site: make example-links URL=https://example.com ARGS="--depth 2"
	@$(PY) -m examples.links $(ARGS) -- "$(URL)"

example-pictures: $(VENV)/ready-examples ## upload pictures on a page; a worker makes thumbnails; QUEUE=rabbitmq
	@exec $(PY) -m common.processes.run examples.pictures

services: $(VENV)/ready $(ENGINE) ## start only the embedded services
	@exec $(PY) -m common.processes.run services

redis-cli: $(VENV)/ready ## type commands for the Redis of the running strategies: KEYS *, LRANGE …, help LRANGE
	@exec $(PY) -m common.services.redis_prompt

forget: $(VENV)/ready ## delete the data that the embedded Valkey, RabbitMQ, NATS and Postgres keep between runs
	@exec $(PY) -m common.services.forget

wheelhouse: $(VENV)/ready ## collect the packages in wheelhouse/, for machines without a network: make run-1 WHEELHOUSE=wheelhouse
	@$(PY) -m pip --disable-pip-version-check --no-input download --quiet --require-hashes --dest wheelhouse $(WHEELS)
	@echo "wheelhouse/ has $$(ls wheelhouse | wc -l | tr -d ' ') packages for $$($(PY) -c 'import platform, sys; \
	  print(platform.system(), platform.machine(), "Python", ".".join(map(str, sys.version_info[:2])))')"
WHEELS := -r requirements.lock -r requirements-workshop.lock -r requirements-examples.lock

test: $(VENV)/ready-dev ## run all tests, on the embedded services
	$(PY) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST)

check: $(VENV)/ready-dev ## check format, lint and types, and run the tests: what CI runs before a short `make faults`
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST) || { \
	  test $$? = 1 && echo "The tests that failed are repeated alone, because four at a time can be too much for two cores." && \
	  $(PY) -m pytest --last-failed --last-failed-no-failures none $(PYTEST); }

compare: $(VENV)/ready-dev ## measure the six strategies side by side; N=200, CLIENTS=10, LATENCY_MS=100, STRATEGIES="1 5", STEPS=1, ENGINES=1
	@exec $(PY) -m lab.compare

faults: $(VENV)/ready-dev ## kill processes and count what is lost; KILLS=10, SEED=2016, RATE=40, STRATEGIES="5 6", FAULTS=worker-kill, LANES=6, STEPS=1, TOPOLOGY=sentinel
	@exec $(PY) -m lab.faults

lab: $(VENV)/ready-dev ## the browser lab: all six side by side, to break and to watch; STRATEGIES="2 5", LAB_PORT=0
	@exec $(PY) -m lab.browser

bench: $(VENV)/ready-dev ## measure how fast the parts are, each next to a reference from the same run; PEERS=1: compare other queues with ours
	@exec $(PY) -m lab.bench

tables: $(VENV)/ready-dev ## write the results of compare, faults and bench into the READMEs
	@$(PY) -m lab.tables

screenshots: $(VENV)/ready-dev ## take the screenshots of the READMEs again, with Chromium; PAGES="lab"
	@$(PY) -m lab.screenshots
	@$(PY) -m lab.example_screenshot

exercise: $(VENV)/ready-workshop ## the workshop's next exercise: make exercise, make exercise N=7; HINT=1, SKIP=1, RESET=1, SOLUTION=1
	@exec $(PY) -m workshop.run

slides: $(VENV)/ready-workshop ## the slides of the workshop, as one HTML file that can be printed
	@$(PY) -m workshop.slides

# First the files that both have, in reading order; then the lists of new and removed files, the new idea first.
diff-%: $(if $(STEP),$(VENV)/ready) ## show what strategy 2 to 6 changes compared with the one before: make diff-2; or a step: make diff-5 STEP=move
	@test -z "$(STEP)" || exec $(PY) -m common.processes.step_diff $*; test -z "$(STEP)" || exit 0; \
	case $* in [2-9]) ;; *) false ;; esac && before=$$(ls -d $$(($* - 1))_* 2>/dev/null) && after=$$(ls -d $*_* 2>/dev/null) || \
	  { echo "there is no strategy $* to compare with the one before" >&2; exit 2; }; \
	for file in __init__.py __main__.py server.py worker.py $$(cd $$after && ls *.py); do \
	  case " $$seen " in *" $$file "*) continue ;; esac; seen="$$seen $$file"; \
	  test ! -f $$before/$$file || test ! -f $$after/$$file || \
	    diff -u --label $$before/$$file --label $$after/$$file $$before/$$file $$after/$$file; \
	done; \
	only() { (cd $$1 && find * -type f ! -name '*.pyc' ! -name README.md) | \
	  awk -v dir="$$1/" '{ folder = $$0; sub("[^/]*$$", "", folder); first = ""; getline first < (dir $$0); \
	    print (first !~ /The one new idea/) "\t" folder "\t" $$0 }' | sort | cut -f 3 | \
	  while read -r file; do \
	  test -f $$2/$$file || awk -v file=$$file 'NR == 1 { first = $$0 } END { \
	    if (first ~ /^("""|-- |\/\*|\/\/ )/) gsub(/^("""|-- |\/\*|\/\/) ?|"""$$/, "", first); else if (file !~ /\.patch$$/) first = ""; \
	    printf "%5d lines  %-30s  %s\n", NR, file, first }' $$1/$$file; done; }; \
	new=$$(only $$after $$before); test -z "$$new" || printf '\nnew in %s:\n%s\n' $$after "$$new"; \
	removed=$$(only $$before $$after); test -z "$$removed" || printf '\nonly in %s:\n%s\n' $$before "$$removed"

break-%: $(VENV)/ready ## apply a patch of a chapter, an experiment that changes code: make break-commit_first
	@$(PY) -m common.processes.patches break $*

backup: $(VENV)/ready ## copy the data of the embedded Valkey, also while it runs, and check the copy
	@exec $(PY) -m common.services.backup backup

restore: $(VENV)/ready ## take back what make break-… has changed; with FILE=.data/backups/….rdb: restore a backup
	@exec $(PY) -m $(if $(filter undefined,$(origin FILE)),common.processes.patches restore,common.services.backup restore "$(FILE)")

format: $(VENV)/ready-dev ## format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: $(VENV)/ready-dev ## update the pinned versions in requirements*.lock
	$(PIP) --quiet uv
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra strategies --output-file requirements.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra strategies --extra examples --constraint requirements.lock \
	  --output-file requirements-examples.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra rabbitmq --constraint requirements.lock \
	  --output-file requirements-rabbitmq.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra jetstream --constraint requirements.lock \
	  --output-file requirements-jetstream.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra workshop --constraint requirements.lock \
	  --output-file requirements-workshop.lock
	$(VENV)/bin/uv pip compile $(UV) pyproject.toml --extra strategies --extra examples --extra rabbitmq --extra jetstream \
	  --extra workshop --extra dev --constraint requirements.lock --constraint requirements-rabbitmq.lock \
	  --constraint requirements-jetstream.lock --output-file requirements-dev.lock
UV := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command 'make lock'

clean: ## remove .venv, caches and the data of the embedded services
	rm -rf $(VENV) .data .hypothesis .mypy_cache .pytest_cache .ruff_cache tests/support/interop/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is created once, and updated when the pinned versions change. An interrupted installation starts again.
$(VENV)/ready: requirements.lock
	@test ! -L $(VENV) || { echo "$(VENV) is a symbolic link: remove it" >&2; exit 2; }
	@echo "Setting up $(VENV); this takes up to a minute and is needed only once"
	@python=$$(for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done) && \
	  test -n "$$python" || { echo "You need Python 3.11 or newer; if it has another name, say PYTHON=…" >&2; exit 2; }; \
	  $$python -m venv --clear $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(PIP) --quiet --require-hashes -r requirements.lock
	@touch $@

EXTRAS := $(VENV)/ready-rabbitmq $(VENV)/ready-jetstream $(VENV)/ready-examples $(VENV)/ready-workshop
$(EXTRAS): $(VENV)/ready-%: requirements-%.lock $(VENV)/ready
	@echo "Adding the packages of requirements-$*.lock"
	@$(PIP) --quiet --require-hashes -r requirements-$*.lock
	@touch $@

$(VENV)/ready-dev: requirements-dev.lock $(VENV)/ready
	@echo "Adding the tools for tests, checks and experiments"
	@$(PIP) --quiet --require-hashes -r requirements-dev.lock
	@touch $(VENV)/ready-jetstream $(VENV)/ready-rabbitmq $(VENV)/ready-examples $(VENV)/ready-workshop $@ # it has theirs too

.PHONY: help wheelhouse exercise slides example-first-job example-links example-pictures services redis-cli forget backup test check compare faults lab bench tables screenshots restore format lock clean
.DEFAULT_GOAL := help
