# `make` lists the recipes. Each one works from a fresh clone: the environment is made on first use.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
CLIENTS := .venv-clients
WORLD_FLAGS = $(if $(WORLD),--world '$(WORLD)') $(if $(REPLAY),--replay '$(REPLAY)')

CHAOS = $(BIN)/pytest -q -n $(or $(JOBS),2) tests/chaos
HOME_FOLDER = $(or $(CRYPTOML_HOME),.cryptoml)
SEED ?= $(shell date +%s)

.PHONY: help chart-check deploy demo up loop test chaos-ingest chaos-loop chaos-serving same-result lost-run soak honesty notebook lint docs bench audit lock image-check clean

help: ## list the recipes
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(if $(PROFILE),$(DEV),$(RUN)) ## the main job once, world to prediction (REPLAY=DIR or WORLD=live for other data, PROFILE=production for real servers)
	@$(BIN)/cryptoml demo $(WORLD_FLAGS) $(if $(PROFILE),--profile '$(PROFILE)')

up: $(RUN) ## the same world stays up: Dagster UI 3000, inference API 8000, MLflow UI 5000
	@$(BIN)/cryptoml up $(WORLD_FLAGS)

loop: $(RUN) ## the closed loop, proved: the market changes, the platform notices, retrains and recovers
	@$(BIN)/python -m cryptoml_assets.operations.loop $(ARGS)

test: $(DEV) $(CLIENTS)/.installed ## the whole test suite (ARGS=... is passed to pytest)
	@scripts/test $(ARGS)

chaos-ingest: $(DEV) ## the fault schedules of ingestion alone, as make test plays them (ARGS=...)
	@$(CHAOS) $(ARGS)

chaos-loop: $(DEV) ## the loop with its processes killed: SCHEDULES=50 drawn from a seed (ARGS="--seed 7")
	@$(BIN)/python -m tests.chaos.loop_run --schedules $(or $(SCHEDULES),50) $(ARGS)

chaos-serving: $(DEV) $(CLIENTS)/.installed ## the inference service under every fault, and under REQUESTS=10000 malformed requests (ARGS="--rounds 3")
	@$(BIN)/python -m tests.chaos.serving_run $(ARGS)
	@$(BIN)/python -m tests.chaos.serving_fuzz --requests $(or $(REQUESTS),10000)

same-result: $(DEV) ## the demo on files and on real servers of production, row by row (ARGS="--days 60")
	@$(BIN)/python -m tests.production.same_result $(ARGS)

lost-run: $(DEV) ## Dagster's processes of production on real servers: a run is launched, killed and run again
	@$(BIN)/pytest -q -p no:randomly tests/production/deployed.py $(ARGS)

soak: $(DEV) ## many more fault schedules: SCHEDULES=2000 drawn from SEED (a new one each time)
	@$(CHAOS) --schedules $(or $(SCHEDULES),2000) --seed $(SEED) $(ARGS)

honesty: $(DEV) ## do models without a signal pass by luck: WORLDS=200 of each kind, rates printed
	@$(BIN)/pytest -q -s -p no:randomly tests/honesty --worlds $(or $(WORLDS),200) $(ARGS)

chart-check: $(DEV) ## the Helm chart against Helm 3 and 4, Kubernetes' schemas, Pod Security, our manifest check; counts (ARGS="lint pods")
	@scripts/chart-check $(ARGS)

deploy: $(DEV) ## install or upgrade both releases in order: ENV=staging, VERSION=0.1.0 for other images than the chart's
	@scripts/deploy '$(or $(ENV),$(error say where: make deploy ENV=staging))' '$(VERSION)'

notebook: $(DEV) ## run notebooks/explore.ipynb over the home of a make demo, and keep it with its results there
	@$(BIN)/jupyter execute --kernel_name=python3 --timeout=300 --output='$(abspath $(HOME_FOLDER))/explore' notebooks/explore.ipynb

lint: $(DEV) ## style, types, import contracts
	@scripts/lint

docs: $(DEV) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(DEV) ## run one file of bench/, e.g. BENCH=features
	@$(BIN)/python -m bench.run $(or $(BENCH),$(error say which: make bench BENCH=features))

audit: $(DEV) ## look every locked package up among known vulnerabilities; exits with 2 where it could not
	@$(BIN)/python scripts/audit $(ARGS)

image-check: $(DEV) ## build the container images for real and put them to work, as root (TARGETS="assets serving")
	@scripts/image-check $(TARGETS)

lock: $(DEV) ## recompile requirements/ from pyproject.toml and clients.in
	@scripts/lock

clean: ## remove what demo, up and test wrote, the environment included
	rm -rf .cryptoml .tools $(VENV) $(CLIENTS) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache site

$(VENV)/bin/python:
	@scripts/make-venv $(PYTHON) $(VENV)

$(RUN): requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@scripts/install $(VENV) requirements/run.txt
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@scripts/install $(VENV) requirements/dev.txt
	@touch $@ $(RUN)

# Foreign clients of the inference protocol, which the tests start as processes of their own.
$(CLIENTS)/.installed: requirements/clients.txt | $(DEV)
	@scripts/install-clients $(VENV) $(CLIENTS) requirements/clients.txt
	@touch $@
