# demo   trains, evaluates and pictures a small DANet on rendered street scenes
# test   runs the whole test suite, on up to eight cores
# lint   checks style, formatting, types
# test-quick  runs the tests that are not marked slow, in under two minutes
# bench  compares danseg with mmseg, in time and memory: all benchmarks at small sizes, or as ARGS
#        asks (BENCH=training for one of attention, heads, inference, input, predict, training). Trainings of
#        FCN and every head, into one table: make bench BENCH=recipes ARGS="--set demo"
# faults kills, fills, damages and stops danseg's tools on purpose and counts what survives: all faults, which
#        takes an hour and a half, or as ARGS asks (make faults ARGS="--only 'kill -9' --tries 8")
# docs   builds the site, into build/site; one warning ends it
# setup  makes .venv alone; every other target does it first, and only where something is missing
# test-openmmlab  runs the test suite on the original line of mmseg, in .venv-openmmlab
#
# PYTHON=python3.12   the Python to make .venv with (3.10 to 3.13)
# VENV=.venv-3.12     another place for it
# ARGS="..."          more arguments for the target's command, for example
#                     make test ARGS="tests/ops -x"

# Without PYTHON=... a .venv that is ready stays as it is, whichever Python it was made with.
KEEP_PYTHON := $(if $(filter undefined,$(origin PYTHON)),--keep-python)
PYTHON ?= python3
# The line of mmseg; each has an environment of its own.
STACK ?= onedl
VENV ?= .venv$(patsubst %,-%,$(filter-out onedl,$(STACK)))
RUN := $(VENV)/bin/python
# Tests in a row stay together, because those of a module share what they prepare. ARGS="-n 0" spreads none.
SPREAD := --numprocesses logical --maxprocesses 8 --dist worksteal
BENCH ?= attention heads inference input predict training

# What runs here is what .venv holds, not what the caller's shell points at.
unexport PYTHONPATH PYTHONHOME

.PHONY: help setup demo test test-quick test-openmmlab lint bench faults docs
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup:
	@command -v "$(PYTHON)" >/dev/null || { echo "error: there is no command $(PYTHON); name a Python" \
		"from 3.10 to 3.13, for example: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" requirements/install.py $(KEEP_PYTHON) --stack "$(STACK)" "$(VENV)"

demo: setup
	@$(RUN) tools/demo.py $(ARGS)

test: setup
	@$(RUN) -m pytest $(SPREAD) $(ARGS)

test-quick: setup
	@$(RUN) -m pytest $(SPREAD) -m "not slow" $(ARGS)

# The benchmarks' tests start processes that would import mmsegmentation's own package `tests` for ours. What
# needs torch alone is the same on both lines.
test-openmmlab:
	@PYTEST_ADDOPTS="$$PYTEST_ADDOPTS --ignore-glob=*/tests/test_benchmarks*.py --ignore=tests/ops --ignore=tests/attention" \
		$(MAKE) --no-print-directory test STACK=openmmlab

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

bench: setup
	@for one in $(BENCH); do echo "== $$one"; $(RUN) -m benchmarks.$$one $(or $(ARGS),--quick) || exit 1; done

faults: setup
	@$(RUN) tests/faults/campaign.py $(ARGS)

# The theme warns of a coming mkdocs, which setup.py excludes.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build $(ARGS)
	@echo "open build/site/index.html; its search needs a server: $(RUN) -m http.server -d build/site"
