# Every target sets up what it needs; the two that matter are `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRAIN_VENV := .venv-train
BENCH_VENV := .venv-bench
UV := $(BIN)/uv pip install --quiet --python
PYTEST := $(BIN)/python -m pytest
FAST := tests/unit tests/property tests/golden tests/stream tests/scenarios
SEED ?= 0
SEEDS ?= 10

# Bytecode is kept, but out of the tree: without it every process compiles its packages anew, which
# costs a worker 3 of the 5 seconds of CPU that its start takes.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
export UV_LINK_MODE ?= copy

.PHONY: help install install-dev demo up down status worker sink test test-fast test-all test-stress chaos chaos-night test-coverage \
	benchmark format lint check schemas lock tinymoe clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/uv: requirements/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "routekeel needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	@touch $@

$(VENV)/.app: $(BIN)/uv requirements/app.txt pyproject.toml
	@echo "installing the packages of the app (once)"
	@$(UV) $(BIN)/python --require-hashes -r requirements/app.txt
	@$(UV) $(BIN)/python --no-deps --no-build-isolation --editable .
	@echo "compiling the kernels for this machine (once)"
	@$(BIN)/python -c 'from routekeel.streams.topology.config import TopologyConfig; from routekeel.streams.wire.path import warm_up; warm_up(TopologyConfig()); import routekeel.streams.wire.rows'
	@touch $@

$(VENV)/.dev: $(VENV)/.app requirements/dev.txt
	@echo "installing the packages for development (once)"
	@$(UV) $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

install: $(VENV)/.app  ## Install the app into .venv

install-dev: $(VENV)/.dev  ## Install the app and the development tools into .venv

demo: install  ## Start everything, run a real model through it, show routes live (KEEP=1 leaves it running)
	@$(BIN)/routekeel demo $(if $(filter 1,$(KEEP)),--keep)

up: install  ## Start Kafka, the schema registry and the ClickHouse engine on this machine
	@$(BIN)/routekeel up

down: install  ## Stop them; the data stay
	@$(BIN)/routekeel down

status: install  ## Show what runs
	@$(BIN)/routekeel status

test: install-dev  ## Run the tests, those on the local stack included
	@$(PYTEST) -n 2 --dist loadfile --durations=25 -m "not stress and not docker" tests

test-fast: install-dev  ## Run the tests that need no stack and no engine
	@$(PYTEST) -q -n 2 -m "not stack and not backend and not slow and not stress and not docker" $(FAST)

test-stress: install-dev  ## Run the long fault injection, simulated and on a real stack (SEEDS=10)
	@SEEDS=$(SEEDS) $(PYTEST) -m stress --timeout 7200 tests

chaos: install-dev  ## Run seeded faults on a real stack and write docs/RELIABILITY.md (SEED=0 SEEDS=10)
	@$(BIN)/python -m tests.chaos --seed $(SEED) --seeds $(SEEDS) --fresh --write

chaos-night: install-dev  ## The same for a night: 100 seeds, longer, the store away for minutes
	@$(BIN)/python -m tests.chaos --seed $(SEED) --seeds 100 --chunks 20000 --away-s 120 --fresh --write

test-all: install-dev  ## Run everything that can run on this machine
	@$(PYTEST) --timeout 7200 tests

test-coverage: install-dev  ## Run the tests with coverage (at least 80 %)
	@$(BIN)/coverage erase
	@$(PYTEST) -m "not stress and not docker" --cov --cov-report= tests
	@$(BIN)/coverage report --fail-under=80 --skip-covered

$(BENCH_VENV)/.ready: $(BIN)/uv requirements/bench.txt pyproject.toml
	@echo "installing the app and its peers for the benchmark (once)"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(UV) $(BENCH_VENV)/bin/python --require-hashes -r requirements/bench.txt
	@$(UV) $(BENCH_VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

benchmark: $(BENCH_VENV)/.ready  ## Measure against a plain loop, Quix Streams, Bytewax and Faust; writes docs/BENCHMARKS.md (QUICK=1: a try, no docs; ONLY=sink: a section again)
	@$(BENCH_VENV)/bin/python -m tests.bench $(if $(filter 1,$(QUICK)),--quick,--write-docs) $(if $(ONLY),--only $(ONLY))

format: install-dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: install-dev  ## Lint, types, import contracts, rendered schemas
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/routekeel schemas --check

check: lint test-fast  ## Lint and fast tests

lock: $(BIN)/uv  ## Renew requirements/*.txt
	@for extras in "sdk:" "app:--extra app --extra mlx" "dev:--extra app --extra mlx --extra dev" "train:--extra train"; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			$${extras#*:} pyproject.toml -o requirements/$${extras%%:*}.txt; done
	@cp requirements/app.txt requirements/bench.txt  # the app's versions wherever the peers allow them
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--extra app --extra bench pyproject.toml -o requirements/bench.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		requirements/tools.in -o requirements/tools.txt

$(TRAIN_VENV)/.ready: $(BIN)/uv requirements/train.txt
	@echo "installing torch for the training (about 3 GB, once)"
	@$(PYTHON) -m venv $(TRAIN_VENV)
	@$(UV) $(TRAIN_VENV)/bin/python --require-hashes -r requirements/train.txt
	@$(UV) $(TRAIN_VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

tinymoe: $(TRAIN_VENV)/.ready  ## Train the bundled model again from its seed (about 20 min on 2 free cores; resumable)
	@OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 $(TRAIN_VENV)/bin/python -m routekeel.backends.tinymoe.train

clean:  ## Remove environments and caches; .routekeel/ (data) stays
	@rm -rf $(VENV) $(TRAIN_VENV) $(BENCH_VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
