# `make quickstart` and `make test` are all you need; each sets the environment up when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One process a core, at most four, each with a gigabyte; a file's tests stay together, for they share what they built.
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help quickstart smoke test test-slow check coverage docs wheel clean

help:
	@echo "make quickstart   set up, then SFT -> reward -> PPO -> win rates on SmolLM2-135M, with a report"
	@echo "make smoke        the same road on a tiny random model, in seconds"
	@echo "make test         set up, then the test suite (no network needed after installation)"
	@echo "make test-slow    the slow tests too"
	@echo "make coverage     line coverage of pipeline/rl"
	@echo "make check        ruff and mypy"
	@echo "make docs         these pages and the API as site/index.html"
	@echo "make wheel        sources and wheel in dist/"
	@echo "make clean        remove the environment and caches; runs/ stays"

# Reinstalls only when the dependency files have changed.
$(READY): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,agents,landmarks,collect,tensorboard]'
	touch $(READY)

quickstart: $(READY)
	$(BIN)/align run configs/quickstart.yaml
	$(BIN)/align summary runs/quickstart

smoke: $(READY)
	$(BIN)/align run configs/smoke.yaml

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS)

test-slow: $(READY)
	$(BIN)/python -m pytest $(WORKERS) -m 'not gpu'

coverage: $(READY)
	$(BIN)/python -m pytest tests/rl --cov=pipeline/rl --cov-report=term-missing --cov-fail-under=90

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
