# Every target makes .venv on its first use and uses it again until pyproject.toml or
# constraints.txt changes. `make demo PYTHON=python3.12` chooses the interpreter.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The stamp is written last and names this folder: an installation that was cut short, or a copy
# of the folder whose environment points at the original, does not count.
STAMP := $(VENV)/installed-here
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

# The tests run one thread a process, in as many processes as there are cores, up to four.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4

.PHONY: demo test test-slow lint format bench venv clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
.PHONY: help

demo: $(STAMP) ## train an RBM on handwritten digits, sample it from noise, write a report
	$(VENV)/bin/gibbsian demo

test: $(STAMP) ## the everyday tests (no network, no data needed)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(STAMP) ## the long ones; those on real data want GIBBSIAN_DATA
	$(PYTEST) -m slow $(ARGS)

lint: $(STAMP) ## ruff (lint and format) and pyright
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

format: $(STAMP) ## let ruff put the sources in order
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(STAMP) ## what sampling and training cost, beside bare products and other packages
	$(RUN) -m benchmarks.run $(ARGS)

venv: $(STAMP) ## only make the environment

clean: ## remove the environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gibbsian needs Python 3.11 or newer; try make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "preparing $(VENV): a minute or two the first time"
	@[ "$$(cat $@ 2>/dev/null)" = "$(CURDIR)" ] || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $@
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@printf '%s' "$(CURDIR)" > $@
