# Everything that a day with Latchkey needs; `make help` lists it.
# It wants Python 3.11 or later and make, and brings the rest itself from the lock.

# `make PYTHON=python3.13 test` runs on another Python, in an environment of its own: .venv-3.13.
PYTHON ?= python3
PORT ?= 8000
# `make test-mysql TESTS="tests/sessions tests/models"` runs a part of them.
TESTS ?=
PYTEST_ARGS ?= -q -n auto --maxprocesses 4
COMPOSE ?= docker compose
# `make lock LOCK_ARGS=--upgrade` takes newer releases; without it, only what pyproject.toml asks for changes.
LOCK_ARGS ?=
# `make bench ROUNDS=2 SECONDS=2 JOBS=read,create PEERS=latchkey,bare_asyncmy` is a quick look, which prints its tables;
# a full run writes them into docs/performance.md, and so does WRITE=1.
ROUNDS ?= 5
SECONDS ?= 5
JOBS ?=
PEERS ?=
REQUESTS ?= 300000
WRITE ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help dev test test-short test-mysql test-mariadb test-galera test-webhooks test-npm test-generators test-envoy test-migrations test-storm test-usage test-import test-fuzz test-bounds test-faults test-mutants coverage check bench bench-own bench-growth bench-soak lock openapi api docs up down clean

# The environment of `python3` is .venv; any other PYTHON has one for its version, so that none runs on another's.
ASKED := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(ASKED))

# Touched last, so that an installation that broke off is done again.
READY := $(VENV)/.ready
CLIENTS := var/clients
CLIENTS_READY := $(CLIENTS)/.ready
BENCH_READY := $(VENV)/.bench-ready
DOCS_READY := $(VENV)/.docs-ready

# An environment of another version, because `python3` has become another one, is made anew.
HELD := $(shell sed -n 's/^version = \([0-9]*\.[0-9]*\).*/\1/p' $(VENV)/pyvenv.cfg 2>/dev/null)
ifneq ($(if $(ASKED),$(filter-out $(ASKED),$(HELD))),)
.PHONY: $(READY)
ANEW := --clear
endif

help: ## Show this list; PYTHON=python3.13 runs a target on another Python, in .venv-3.13
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(READY) ## Set up everything and serve on 127.0.0.1:$PORT with reload
	@exec $(VENV)/bin/latchkey dev --from-make --port '$(PORT)'

test: $(READY) ## Run the tests, on SQLite, and on MariaDB and Redis where they are installed
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

# What a new Python changes is noticed here: what is imported, warned of, described, closed.
SHORT := tests/test_public_api.py tests/service/test_openapi.py tests/service/test_app.py \
	tests/sessions/test_sqlite_closing.py tests/sessions/test_storm.py

test-short: $(READY) ## Run what another Python is tried by, beside the whole suite on one: imports, OpenAPI, app, storm
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) $(SHORT)

# The whole of a server kills migrations at more points than a part.
MIGRATIONS = $(if $(TESTS),,LATCHKEY_TEST_MIGRATIONS=long)

test-mysql: $(READY) ## Run what needs a server on MySQL, which Debian's own apt brings where it is missing
	mysqld="$${LATCHKEY_TEST_MYSQLD:-$$(.ci/get-mysql var/mysql)}" && \
		LATCHKEY_TEST_SERVER=mysql LATCHKEY_TEST_MYSQLD="$$mysqld" $(MIGRATIONS) $(VENV)/bin/python -m pytest $(PYTEST_ARGS) -m mariadb $(TESTS)

test-mariadb: $(READY) ## Run the same on another MariaDB: LATCHKEY_TEST_MARIADBD, or that of Debian unstable (11.8)
	mariadbd="$${LATCHKEY_TEST_MARIADBD:-$$(.ci/get-mariadb var/mariadb)}" && \
		LATCHKEY_TEST_MARIADBD="$$mariadbd" $(MIGRATIONS) $(VENV)/bin/python -m pytest $(PYTEST_ARGS) -m mariadb $(TESTS)

test-galera: $(READY) ## Run a private Galera cluster of three nodes and write to two of them (galera-4, rsync)
	LATCHKEY_TEST_GALERA=1 $(VENV)/bin/python -m pytest -q -m galera

test-webhooks: $(READY) ## Send 10,000 events to a webhook that fails half of the time, and kill 20 processes that deliver them
	LATCHKEY_TEST_WEBHOOKS=long $(VENV)/bin/python -m pytest -q tests/service/webhooks/test_killed_deliverer.py

test-npm: $(READY) ## Sign requests with the libraries of npm, and verify them (node and npm)
	cd tests/npm && npm ci --silent
	LATCHKEY_TEST_NPM=1 $(VENV)/bin/python -m pytest -q tests/service/authentication/test_target_uri.py

test-generators: $(READY) $(CLIENTS_READY) ## Generate clients from the OpenAPI description, use them, and fuzz the service by it (node and npm)
	cd tests/npm && npm ci --silent
	LATCHKEY_TEST_GENERATORS=$(CURDIR)/$(CLIENTS) $(VENV)/bin/python -m pytest -q tests/generators

test-envoy: $(READY) $(CLIENTS_READY) ## Run the real Envoy with examples/gate/envoy.yaml, beside nginx and Caddy
	LATCHKEY_TEST_ENVOY=$(CURDIR)/$(CLIENTS)/bin/envoy $(VENV)/bin/python -m pytest -q tests/server/test_gate.py

test-migrations: $(READY) ## Kill `latchkey migrate` at 20 points of each upgrade, on SQLite and MariaDB; test-mysql does so on MySQL
	LATCHKEY_TEST_MIGRATIONS=long $(VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/models/test_killed_migrations.py tests/models/test_broken_migrations.py

test-storm: $(READY) ## Cancel thousands of requests at every point and look for leaks
	LATCHKEY_TEST_STORM=long $(VENV)/bin/python -m pytest -q -m storm

test-usage: $(READY) ## Count 100,000 calls over four workers, and measure the size of a year of usage
	LATCHKEY_TEST_USAGE=long $(VENV)/bin/python -m pytest -q -s tests/service/usage/test_processes.py

test-import: $(READY) ## Import 100,000 keys, kill the command half-way, and run it again
	LATCHKEY_TEST_IMPORT=long $(VENV)/bin/python -m pytest -q -s tests/service/commands/test_killed_import.py

test-fuzz: $(READY) ## Change 20,000 signed requests at random; LATCHKEY_TEST_SEED=<n> makes the same ones again
	LATCHKEY_TEST_FUZZ=$${LATCHKEY_TEST_FUZZ:-20000} $(VENV)/bin/python -m pytest -q tests/fuzz

test-bounds: $(READY) ## Measure what 2,000 clients that never end their requests take, and a minute after they left
	LATCHKEY_TEST_BOUNDS=long $(VENV)/bin/python -m pytest -q -s tests/server/test_memory.py tests/server/test_parked.py

# `make coverage TESTS=tests/models` measures a part.
coverage: $(READY) ## Measure which lines and branches the tests run, in served processes too
	rm -rf var/coverage && mkdir -p var/coverage
	$(VENV)/bin/coverage run -m pytest $(PYTEST_ARGS) $(TESTS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

test-faults: $(READY) ## Inject all faults of docs/reliability.md with real servers, and rewrite its table
	LATCHKEY_TEST_FAULTS=all LATCHKEY_TEST_REQUIRE_MARIADB=1 LATCHKEY_TEST_REQUIRE_REDIS=1 \
		$(VENV)/bin/python -m pytest -q -p no:randomly tests/faults

check: $(READY) ## Lint, format, types, the borders between the packages, models against migrations, OpenAPI
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m latchkey.migrations.check
	.ci/lint-openapi

MUTANTS ?= --count 200 --jobs 2

test-mutants: $(READY) ## Change 200 lines of the session layer, one at a time, and see that a test fails (MUTANTS=--help)
	$(VENV)/bin/python -m tests.mutants $(MUTANTS)

MEASURE = --rounds $(ROUNDS) --seconds $(SECONDS) --jobs "$(JOBS)" --peers "$(PEERS)" $(if $(WRITE),--write)

bench: $(BENCH_READY) ## Measure Latchkey beside its peers (ROUNDS, SECONDS, JOBS, PEERS, WRITE)
	$(VENV)/bin/python -m benchmarks run peers $(MEASURE)

bench-own: $(BENCH_READY) ## Measure the ways in which a team's own endpoints read, beside the frameworks
	$(VENV)/bin/python -m benchmarks run own $(MEASURE)

bench-growth: $(BENCH_READY) ## Measure how cost grows with clients, pools, workers and rows
	$(VENV)/bin/python -m benchmarks run growth $(MEASURE)

bench-soak: $(BENCH_READY) ## Send REQUESTS requests of all kinds and look at the memory
	$(VENV)/bin/python -m benchmarks soak --requests $(REQUESTS) $(if $(WRITE),--write)

# The first lock is the widest; the others are held to its versions.
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

lock: $(READY) ## Write the locks again from pyproject.toml (LOCK_ARGS=--upgrade for newer releases)
	$(COMPILE) pyproject.toml --extra dev --extra redis --extra opentelemetry --output-file requirements-dev.txt
	$(COMPILE) pyproject.toml --extra redis --constraint requirements-dev.txt --output-file requirements.txt
	$(COMPILE) pyproject.toml --extra bench --extra redis --constraint requirements-dev.txt --output-file requirements-bench.txt
	$(COMPILE) pyproject.toml --extra docs --constraint requirements-dev.txt --output-file requirements-docs.txt
	$(COMPILE) pyproject.toml --extra clients --output-file requirements-clients.txt
	echo setuptools | $(COMPILE) - --constraint requirements-dev.txt --output-file requirements-build.txt

openapi: $(READY) ## Write docs/openapi.json from the routes
	$(VENV)/bin/latchkey openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

api: $(READY) ## Write docs/api.md from the docstrings of the public API
	$(VENV)/bin/python docs/api.py

docs: $(DOCS_READY) ## Build the documentation into var/site, and check its links and that it loads nothing from elsewhere
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict # with --quiet it would not count warnings
	$(VENV)/bin/python docs/build.py var/site

up: .env ## Build and start the API and MariaDB in containers, and wait until they answer
	PORT=$(PORT) $(COMPOSE) up --build --detach --wait

down: ## Stop the containers; the database keeps its volume
	$(COMPOSE) down

clean: ## Remove what make made; var/, .env and the databases stay
	rm -rf .venv .venv-* build dist latchkey.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.env: ## Make the secrets of the containers, once, readable by you only
	@umask 077 && { \
		echo "LATCHKEY_KEYRING=1:$$(head -c 32 /dev/urandom | base64)" && \
		echo "MARIADB_PASSWORD=$$(od -An -v -tx1 -N 24 /dev/urandom | tr -d ' \n')" && \
		echo "MARIADB_ROOT_PASSWORD=$$(od -An -v -tx1 -N 24 /dev/urandom | tr -d ' \n')"; \
	} > $@
	@echo "wrote new secrets to $@: keep a copy, for the signed keys cannot be read without LATCHKEY_KEYRING"

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Latchkey needs Python 3.11 or later, and '$(PYTHON)' is older or missing:" \
			"install one and name it, as in 'make PYTHON=python3.13 $(MAKECMDGOALS)'." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(ANEW) $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH_READY): requirements-bench.txt $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

$(DOCS_READY): requirements-docs.txt $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	@touch $@

$(CLIENTS_READY): requirements-clients.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-clients.txt
	@touch $@
