# Everything a person types here: make run, make setup, make test, make lint, make bench.
# A step that is done leaves a stamp, so that a second `make run` starts at once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/stamps
PEERS  := .peers
PEER_SERVER := $(PEERS)/bin/llama-server
MCP_SERVERS := .mcp-servers
JOBS   ?= $(shell nproc)
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

KERNELS        := src/oneiros/engine/_kernels.so src/oneiros/training/_kernels.so
KERNEL_SOURCES := $(wildcard src/oneiros/*/kernels/*.[ch])
LINTED         := $(wildcard src tests bench)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run setup dev kernels model large-models test test-long demo lint format peers bench clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: setup ## set up what is missing and chat with the default model
	@$(BIN)/oneiros chat

setup: $(STAMPS)/package $(STAMPS)/sandbox kernels model ## environment, dependencies, C kernels, default models

dev: setup $(STAMPS)/dev $(STAMPS)/train $(MCP_SERVERS)/stamp

kernels: $(KERNELS) ## build the C kernels (only what changed)

model: $(STAMPS)/package kernels
	@$(BIN)/oneiros pull smollm2-135m >/dev/null
	@$(BIN)/oneiros pull all-minilm-l6-v2 >/dev/null

# What the long tests and the benchmarks use beside the default model: 1.6 GB.
large-models: model
	$(BIN)/oneiros pull qwen2.5-coder-0.5b
	$(BIN)/oneiros pull qwen2.5-coder-1.5b

test: dev ## the default tests
	$(BIN)/python -m pytest -q

test-long: dev large-models $(PEERS)/stamp $(MCP_SERVERS)/node-stamp $(STAMPS)/chromium ## every test: more seeds, more formats, larger models (hours)
	$(BIN)/python -m pytest -q -m "long or not long"

# About ten minutes on two cores. Stopped, it goes on when it is called again.
demo: dev ## from text to a chat model, with a report: build/demo/report.md
	@$(BIN)/python -m oneiros.training.demo build/demo

lint: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/train ## ruff and mypy
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy

format: $(STAMPS)/dev ## format the Python sources
	$(BIN)/ruff format $(LINTED)
	$(BIN)/ruff check --fix $(LINTED)

bench: dev large-models $(PEERS)/stamp $(PEERS)/litgpt-stamp $(PEERS)/agentdojo-stamp $(PEERS)/garak/stamp $(PEER_SERVER) ## measure ours against others'
	$(BIN)/python bench/engine.py
	$(BIN)/python bench/serving.py
	$(BIN)/python bench/kernel.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/agent.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/detectors.py
	$(BIN)/python bench/garak.py
	$(BIN)/python bench/agentdojo.py

peers: $(PEERS)/stamp $(PEERS)/litgpt-stamp $(PEERS)/agentdojo-stamp $(PEERS)/garak/stamp $(PEER_SERVER) ## build what to compare with, in an environment of its own (about 15 minutes)

clean: ## remove what was built and installed here (models stay)
	rm -rf $(VENV) build $(KERNELS)

$(STAMPS)/venv:
	@PYTHON="$(PYTHON)" sh requirements/make-venv.sh $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/sandbox: $(STAMPS)/venv requirements/install-bubblewrap.sh
	@sh requirements/install-bubblewrap.sh
	@touch $@

$(STAMPS)/chromium: requirements/install-chromium.sh
	@sh requirements/install-chromium.sh
	@touch $@

$(STAMPS)/runtime: $(STAMPS)/venv requirements/build.txt requirements/runtime.txt
	@echo "Installing the locked dependencies"
	@$(PIP) install -r requirements/build.txt -r requirements/runtime.txt
	@touch $@

$(STAMPS)/package: $(STAMPS)/runtime pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/runtime requirements/dev.txt
	@echo "Installing the locked development tools"
	@$(PIP) install -r requirements/dev.txt
	@touch $@

# torch comes first and by itself: machines offer different builds of it under one version.
$(STAMPS)/train: $(STAMPS)/dev requirements/train-constraints.txt requirements/train.txt
	@echo "Installing torch and what training needs"
	@$(PIP) install -r requirements/train-constraints.txt
	@$(PIP) install -r requirements/train.txt
	@touch $@

# CMake is the one from the environment: bare machines have none, or an old one.
build/kernels/CMakeCache.txt: CMakeLists.txt $(STAMPS)/runtime
	@command -v $${CC:-cc} >/dev/null || { \
	  echo "A C compiler is needed to build the kernels: install gcc (apt install gcc libc6-dev)." >&2; exit 1; }
	@mkdir -p build
	@$(BIN)/cmake -S . -B build/kernels -G "Unix Makefiles" -DONEIROS_IN_SOURCE=ON >build/cmake.log 2>&1 \
	  || { cat build/cmake.log >&2; exit 1; }
	@touch $@ # CMake leaves it as it is where nothing changed

$(KERNELS) &: $(KERNEL_SOURCES) build/kernels/CMakeCache.txt
	@echo "Building the C kernels"
	@$(BIN)/cmake --build build/kernels --parallel $(JOBS) -- --no-print-directory -s
	@touch $(KERNELS)

# Servers that others wrote, for the tests of MCP. Some need an older library than the others.
$(MCP_SERVERS)/stamp: requirements/mcp-servers.txt requirements/mcp-servers-1.txt
	@PYTHON="$(PYTHON)" sh requirements/make-venv.sh $(MCP_SERVERS)
	@echo "Installing MCP servers to test with"
	@$(MCP_SERVERS)/bin/python -m pip --disable-pip-version-check -qq install -r requirements/mcp-servers.txt
	@rm -rf $(MCP_SERVERS)/version-1
	@$(MCP_SERVERS)/bin/python -m pip --disable-pip-version-check -qq install --no-deps --target $(MCP_SERVERS)/version-1 -r requirements/mcp-servers-1.txt
	@touch $@

$(MCP_SERVERS)/node-stamp: requirements/mcp-servers/package.json requirements/mcp-servers/package-lock.json | $(MCP_SERVERS)/stamp
	@command -v npm >/dev/null || { echo "npm is needed for the long tests: install Node.js 20 or newer." >&2; exit 1; }
	@cp requirements/mcp-servers/*.json $(MCP_SERVERS)/
	@npm ci --prefix $(MCP_SERVERS) --no-audit --no-fund --loglevel=error
	@touch $@

# llama.cpp for this very processor, less the tile registers of AMX: with them this version crashes in
# its first matrix product. pip's cache is left alone, because it does not tell flags apart.
PEER_FLAGS := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
$(PEERS)/stamp: requirements/peers.txt requirements/train-constraints.txt
	@PYTHON="$(PYTHON)" sh requirements/make-venv.sh $(PEERS)
	$(PEERS)/bin/python -m pip install --disable-pip-version-check -r requirements/train-constraints.txt
	CMAKE_ARGS="-DGGML_NATIVE=ON" CFLAGS="$(PEER_FLAGS)" CXXFLAGS="$(PEER_FLAGS)" \
	  $(PEERS)/bin/python -m pip install --disable-pip-version-check --no-cache-dir --no-binary llama-cpp-python -r requirements/peers.txt
	@touch $@

# litgpt runs on our torch: its packages alone are installed, for bench/training.py to import.
$(PEERS)/litgpt-stamp: requirements/peers-litgpt.txt | $(PEERS)/stamp $(STAMPS)/train
	@rm -rf $(PEERS)/litgpt
	@$(PIP) install --no-deps --target $(PEERS)/litgpt -r requirements/peers-litgpt.txt
	@touch $@

# AgentDojo runs in our process, behind our packages, on the kernel that it tries.
$(PEERS)/agentdojo-stamp: requirements/peers-agentdojo.txt | $(PEERS)/stamp $(STAMPS)/runtime
	@rm -rf $(PEERS)/agentdojo
	@$(PIP) install --no-deps --target $(PEERS)/agentdojo -r requirements/peers-agentdojo.txt
	@touch $@

# garak's probes and text detectors, without its generators and what these ask for.
$(PEERS)/garak/stamp: requirements/peers-garak.txt
	@PYTHON="$(PYTHON)" sh requirements/make-venv.sh $(PEERS)/garak
	$(PEERS)/garak/bin/python -m pip install --disable-pip-version-check -qq --no-deps -r requirements/peers-garak.txt
	@touch $@

$(PEER_SERVER): $(PEERS)/stamp requirements/make-peer-server.sh | $(STAMPS)/runtime
	@echo "Building llama.cpp's server"
	@CMAKE="$(BIN)/cmake" CFLAGS="$(PEER_FLAGS)" CXXFLAGS="$(PEER_FLAGS)" \
	  sh requirements/make-peer-server.sh $(PEERS) $(JOBS)
