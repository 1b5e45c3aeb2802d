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
WORLD_FLAGS = $(if $(WORLD),--world '$(WORLD)') $(if $(REPLAY),--replay '$(REPLAY)')

CHAOS = $(BIN)/pytest -q -n $(or $(JOBS),2) tests/chaos
HOME_FOLDER = $(or $(CRYPTOML_HOME),.cryptoml)
SEED ?= $(shell date +%s)

.PHONY: help demo up test chaos-ingest soak honesty notebook lint docs bench lock clean

help: ## list the recipes
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUN) ## the main job once, world to prediction (REPLAY=DIR or WORLD=live for other data)
	@$(BIN)/cryptoml demo $(WORLD_FLAGS)

up: $(RUN) ## the same world stays up: Dagster UI 3000, inference API 8000, MLflow UI 5000
	@$(BIN)/cryptoml up $(WORLD_FLAGS)

test: $(DEV) ## the whole test suite (ARGS=... is passed to pytest)
	@scripts/test $(ARGS)

chaos-ingest: $(DEV) ## the fault schedules of ingestion alone, as make test plays them (ARGS=...)
	@$(CHAOS) $(ARGS)

soak: $(DEV) ## many more fault schedules: SCHEDULES=2000 drawn from SEED (a new one each time)
	@$(CHAOS) --schedules $(or $(SCHEDULES),2000) --seed $(SEED) $(ARGS)

honesty: $(DEV) ## do models without a signal pass by luck: WORLDS=200 of each kind, rates printed
	@$(BIN)/pytest -q -p no:randomly tests/honesty --worlds $(or $(WORLDS),200) $(ARGS)

notebook: $(DEV) ## run notebooks/explore.ipynb over the home of a make demo, and keep it with its results there
	@$(BIN)/jupyter execute --kernel_name=python3 --timeout=300 --output='$(abspath $(HOME_FOLDER))/explore' notebooks/explore.ipynb

lint: $(DEV) ## style, types, import contracts
	@scripts/lint

docs: $(DEV) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(DEV) ## run one file of bench/, e.g. BENCH=features
	@$(BIN)/python -m bench.run $(or $(BENCH),$(error say which: make bench BENCH=features))

lock: $(DEV) ## recompile requirements/ from pyproject.toml
	@scripts/lock

clean: ## remove what demo, up and test wrote, the environment included
	rm -rf .cryptoml .tools $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache site

$(VENV)/bin/python:
	@scripts/make-venv $(PYTHON) $(VENV)

$(RUN): requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@scripts/install $(VENV) requirements/run.txt
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@scripts/install $(VENV) requirements/dev.txt
	@touch $@ $(RUN)
