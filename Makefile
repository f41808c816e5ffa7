# The one entry: `make` prints this help.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help
.PHONY: help setup check fix test gen demo bench docs fw wheel clean

help: ## print this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

setup: $(STAMP) ## create .venv with everything, install missing system packages

$(STAMP): pyproject.toml constraints.txt tools/system_packages.sh
	sh tools/system_packages.sh $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

check: $(STAMP) ## format, lint, types, import layers, generated files, smoke test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m hil.messages.wire | diff - firmware/generated/wire.h
	$(BIN)/python -m pytest -q -m smoke

fix: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gen: $(STAMP) ## write firmware/generated/wire.h from hil/messages/wire.py
	$(BIN)/python -m hil.messages.wire > firmware/generated/wire.h

test: check ## everything CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile

demo: $(STAMP) ## train a simulated spring network on Iris, in place
	$(BIN)/hil demo

bench: $(STAMP) ## measure; figures go to docs/benchmarks.md by hand
	$(BIN)/python benchmarks/bench_insitu.py

docs: $(STAMP) ## write docs/cli.md from the program's own help
	$(BIN)/python tools/write_cli_docs.py

fw: $(STAMP) ## build the firmware and run its C tests
	$(MAKE) -C firmware test

wheel: $(STAMP) ## build the wheel
	$(BIN)/python -m build --wheel

clean: ## remove what was built
	rm -rf $(VENV) build dist runs firmware/build
