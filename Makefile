# The two commands a newcomer needs are `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# --no-compile: bytecode of what is really imported is written by the first start; all of it would take longer than
# the rest of the installation.
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
REQUIREMENTS := requirements.txt requirements-dev.txt constraints.txt $(wildcard */pyproject.toml */*/pyproject.toml)

.PHONY: run test test-comfy check setup setup-run format generate clean

run: setup-run ## set up, start NATS and all services, make a first picture, keep serving on :4200
	$(BIN)/reverie up

test: setup ## every test that needs no GPU
	$(BIN)/pytest

test-comfy: setup ## what the fake ComfyUI passes, against the real one at COMFYUI_URL (docs/comfyui.md)
	@test -n "$(COMFYUI_URL)" || { echo 'COMFYUI_URL names no server; see docs/comfyui.md' >&2; exit 2; }
	$(BIN)/pytest -rs libs/testing/tests/test_real_comfy_*.py

check: setup ## lint, types, import boundaries, dependencies, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m reverie_protocol.export --check
	$(BIN)/python -m reverie_gateway.openapi --check
	tools/check-dependencies $(BIN)

generate: setup ## JSON Schema, AsyncAPI, OpenAPI and TypeScript from libs/protocol
	$(BIN)/python -m reverie_protocol.export
	$(BIN)/python -m reverie_gateway.openapi

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.installed-dev
setup-run: $(VENV)/.installed

$(VENV)/.installed: $(REQUIREMENTS)
	@echo 'installing Reverie and PyTorch into $(VENV); the first time this takes a minute or two'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(REQUIREMENTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements-dev.txt -c constraints.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
