# Every target makes the virtual environment that it needs: nothing has to be prepared.
#
#   PYTHON=/path/to/python   the interpreter (else: the oldest supported one there is)
#   VENV=.venv-3.13          the virtual environment
#   TESTS='server'           which tests: a pytest marker expression
#   PROVE='--part forks'     which part of `make prove` (--list names them)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:  # two pips in one virtual environment destroy each other's work

PYTHON ?=
VENV ?= .venv
TESTS ?= not slow
BIN := $(VENV)/bin
IN_PROCESS := not slow and not server
UNIT := $(IN_PROCESS) and not timed

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp per set of extras; new requirements, or a new version, make them all stale.
$(VENV)/.with-%: pyproject.toml src/hostline/__init__.py tools/venv
	@bash tools/venv "$(VENV)" "$*" $(PYTHON)

.PHONY: demo
demo: $(VENV)/.with-demo ## both guards at work on real servers, then a live page; ends by itself where there is no terminal
	@$(BIN)/python -m hostline.demo

.PHONY: test
test: $(VENV)/.with-test,servers ## the unit tests and the tests on real servers
	$(BIN)/python -m pytest -m "$(TESTS)"

.PHONY: test-unit
test-unit: ## the unit tests alone (seconds)
	@$(MAKE) --no-print-directory test TESTS="$(UNIT)"

.PHONY: test-slow
test-slow: $(VENV)/.with-test,servers ## the tests that repeat something thousands of times
	$(BIN)/python -m pytest -m "slow and not server"

.PHONY: test-matrix
test-matrix: $(VENV)/.with-test,servers ## the whole matrix of servers and blocking calls
	$(BIN)/python -m pytest -m "slow and server"

.PHONY: wsgi-table
wsgi-table: $(VENV)/.with-test,servers ## what an abort does on each WSGI server (minutes)
	$(BIN)/python tests/servers/wsgi_table.py

.PHONY: asgi-table
asgi-table: $(VENV)/.with-test,servers ## what an abort does on each ASGI server (minutes)
	$(BIN)/python tests/servers/asgi_table.py

.PHONY: peers
peers: ## other projects' own tests, with both guards around their apps (minutes)
	@$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/.with-peers
	.venv-peers/bin/python tests/suites/run.py

.PHONY: screenshots
screenshots: $(VENV)/.with-test,servers ## the pictures of the demo in README and docs, from a real browser
	mkdir -p docs/_static
	SCREENSHOTS=docs/_static BROWSER_REQUIRED=1 $(BIN)/python -m pytest -m browser -k story

PROVE ?=
.PHONY: prove
prove: $(VENV)/.with-test,servers ## all that it is put through, for hours; goes on where it was (PROVE="--part forks")
	$(BIN)/python tests/trials/prove.py --state $(VENV)/proved.json --logs $(VENV)/proved $(PROVE)

.PHONY: prove-short
prove-short: $(VENV)/.with-test,servers ## soak, faults and forks in short (minutes)
	$(BIN)/python tests/trials/prove.py --short $(PROVE)

.PHONY: test-others
test-others: $(VENV)/.with-test,servers ## `make test` on every other supported CPython that is there, without what is the same on all
	@own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	bash tools/pythons | while IFS=$$'\t' read -r version python; do \
	  if [ "$$version" != "$$own" ]; then \
	    $(MAKE) --no-print-directory test TESTS="($(TESTS)) and not browser and not once" \
	      PYTHON="$$python" VENV=".venv-$$version" </dev/null; \
	  fi; \
	done

.PHONY: test-all
test-all: test test-others ## `make test` on every supported CPython that is there

.PHONY: coverage
coverage: $(VENV)/.with-test,servers ## all tests in this process, and what they leave unexecuted (nothing, or it fails)
	$(BIN)/python -m pytest -m "$(IN_PROCESS)" --cov --cov-report=term-missing

.PHONY: lint
lint: $(VENV)/.with-lint ## formatting and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pre-commit validate-config
	$(BIN)/shellcheck --severity=warning .ci/run examples/heroku/bin/* tools/postgresql tools/pythons tools/test-package tools/venv

.PHONY: format
format: $(VENV)/.with-lint ## format, and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: types
types: $(VENV)/.with-types ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python --warnings

.PHONY: docs
docs: $(VENV)/.with-docs ## the documentation, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html

.PHONY: app-json
app-json: $(VENV)/.with-lint ## examples/heroku/app.json, its variables anew from the settings
	$(BIN)/python tools/app_json.py

.PHONY: bench
bench: $(VENV)/.with-bench ## what the middlewares add to a request
	$(BIN)/python -m benchmarks

.PHONY: bench-smoke
bench-smoke: $(VENV)/.with-bench ## that the benchmarks run
	$(BIN)/python -m benchmarks --smoke

.PHONY: package
package: $(VENV)/.with-package $(VENV)/.with-test,servers ## wheel and sdist, and a test of each installed alone
	@bash tools/test-package "$(BIN)/python"

.PHONY: newcomer
newcomer: $(VENV)/.with-test,servers ## the tutorial's way from a clone to a guarded app, timed
	$(BIN)/python tools/newcomer.py

.PHONY: hooks
hooks: $(VENV)/.with-lint $(VENV)/.with-types ## run lint and types before every commit
	$(BIN)/pre-commit install

.PHONY: clean
clean: ## remove all that was made
	rm -rf .venv .venv-* dist build docs/_build htmlcov .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
