# Every command makes the environment it needs; nothing has to be installed beforehand but Python >= 3.11 and make.
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

.PHONY: constraints
constraints: venv  ## resolve constraints.txt anew
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file constraints.txt
