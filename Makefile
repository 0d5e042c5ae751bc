# Every command makes the Python environment that it needs from Python >= 3.11. The contract suites, so `make test` too,
# start a PostgreSQL and a Spark (Java 17 or newer) of their own, which must be installed: .ci/run does it on Debian.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: venv
venv: $(VENV)/.ready  ## make .venv: editable install with every extra that the tests need

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --constraint constraints.txt --editable '.[test]'
	@touch $@

MINIMUM := .venv-minimum
$(MINIMUM)/.ready: pyproject.toml tests/minimum-constraints.txt | $(VENV)/.ready
	uv venv --quiet --clear --python $(BIN)/python $(MINIMUM)
	uv pip install --python $(MINIMUM)/bin/python --quiet --compile-bytecode --resolution lowest-direct \
	  --constraint tests/minimum-constraints.txt -r pyproject.toml --extra test
	uv pip install --python $(MINIMUM)/bin/python --quiet --no-deps --editable .
	@touch $@

.PHONY: constraints
constraints: venv  ## resolve constraints.txt anew
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file constraints.txt

.PHONY: demo
demo: venv  ## the whole loop on fifty years of real weather; ONCE=1 ends by itself
	mlops demo --folder .demo $(if $(ONCE),--once)

.PHONY: check
check: venv  ## lint, format, types, import directions
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache

.PHONY: unit contract dags e2e
unit: venv  ## the core, without Airflow and without network
	pytest tests/unit
contract: venv  ## every port: its fake and its real adapters under one suite
	pytest -n 2 --dist loadfile tests/contract
dags: venv  ## operators and whole DAGs in Airflow's own test runner
	pytest -n 2 --dist loadfile tests/dags
e2e: venv  ## the demo, and a standalone Airflow driven as a user does
	pytest tests/e2e

.PHONY: test
test: check unit contract dags e2e  ## check and all tests: what CI runs, but for test-minimum

.PHONY: test-minimum
test-minimum: $(MINIMUM)/.ready  ## the same on the oldest versions that pyproject.toml allows, but for e2e
	$(MINIMUM)/bin/python -m pytest tests/unit
	$(MINIMUM)/bin/python -m pytest -n 2 --dist loadfile tests/contract
	$(MINIMUM)/bin/python -m pytest -n 2 --dist loadfile tests/dags

.PHONY: bench-%
bench-%: venv  ## one board: make bench-parse writes benchmarks/results/parse.json
	python benchmarks/$(subst -,_,$*).py; status=$$?; python benchmarks/page.py && exit $$status

.PHONY: docs
docs: venv  ## the generated reference pages
	mlops schema --format json --output docs/reference/pipeline.schema.json
	mlops schema --format markdown --output docs/reference/pipeline.md

.PHONY: help
help:
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort
