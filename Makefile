# `make help` lists the targets. Nothing but Python 3.12 and make is needed: uv gets a virtual environment of its own.

PYTHON ?= python3.12
UV := .uv/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS = never
SOURCES := libs services tests benchmarks scripts docker conftest.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-kubernetes e2e chaos bench lint format proto proto-check metrics metrics-check catalog catalog-check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## Run the example sweep on this machine, from training to the held-out score
	@$(BIN)/daf sweep run examples/sweep_config.yaml

test: setup ## Run the test-suite: all that needs no cluster
	$(BIN)/pytest -m "not chaos and not chart and not kubernetes and not e2e_cluster" -n 2 --dist loadfile

test-kubernetes: setup ## Test the chart and what runs pods on the cluster that KUBECONFIG names
	$(BIN)/pytest -rs -n 2 --dist loadfile tests/chart tests/kubernetes

e2e: setup ## Test everything on the cluster that KUBECONFIG names; IMAGE_PREFIX is a registry that it pulls from
	scripts/e2e.sh

chaos: setup ## Run all fault-injection tests, many seeds
	$(BIN)/pytest tests/chaos services/scheduler/tests/test_scheduler_crashes.py -m "chaos or not chaos" -n 2

bench: setup ## Print every benchmark beside its peer
	$(BIN)/python -m benchmarks

lint: setup proto-check metrics-check ## Check style, types, boundaries and generated code
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code

format: setup ## Format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	cd proto && ../$(BIN)/buf format --write

proto: setup ## Generate libs/daf_protos from proto/
	$(BIN)/python scripts/generate_protos.py

proto-check: setup
	$(BIN)/python scripts/generate_protos.py --check

metrics: setup ## Generate docs/metrics.md from the metrics that the code defines
	$(BIN)/python scripts/generate_metrics.py

metrics-check: setup
	$(BIN)/python scripts/generate_metrics.py --check

catalog: setup ## Generate the catalogue of missions, policies and statistics from the installed cogames
	$(BIN)/python -m daf_cogames.catalog_build

catalog-check: setup ## Check that the catalogue is that of the installed cogames (two minutes)
	$(BIN)/python -m daf_cogames.catalog_build --check

setup: .venv/.synced ## Install everything into .venv

.venv/.synced: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) | $(UV)
	$(UV) sync --quiet --locked --compile-bytecode --all-packages --python $(PYTHON)
	@touch $@

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' || \
	    { echo "Python 3.12 is needed: say where it is with make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .uv
	.uv/bin/pip --quiet install "uv>=0.9,<1"

include docker/images.mk

clean: ## Delete the environment and all caches
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
