# The words: setup fmt check test demo up down e2e bench docs chaos. Each ends by printing its figure on the last line.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)

.PHONY: setup fmt check test demo up down e2e bench docs chaos lock
IV_HOME ?= workspace

setup: $(STAMP)
	@echo "setup: $$($(BIN)/python --version), $$($(BIN)/pip list --format=freeze | wc -l) packages in $(VENV)"

# Exact versions from the lock; without the lock's hashes, since torch may come as a local CPU build.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@rm -f $(VENV)/.stamp-*; touch $@

fmt: $(STAMP)
	$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format .

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP)
	$(BIN)/pytest -n 2 -m "not chaos and not e2e"

demo: $(STAMP)
	$(BIN)/iv demo

# The servers of the workspace (IV_HOME, IV_PREFECT_PORT, IV_MLFLOW_PORT move them), and our deployments on them.
up: $(STAMP)
	$(BIN)/iv up --home $(IV_HOME)
	. $(IV_HOME)/run/env.sh && $(BIN)/prefect --no-prompt deploy --all > $(IV_HOME)/logs/deploy.log 2>&1 || \
	  { tail -20 $(IV_HOME)/logs/deploy.log; exit 1; }
	@echo "up: $$(grep -c 'successfully created' $(IV_HOME)/logs/deploy.log) deployments; make down stops all"

down:
	$(BIN)/iv down --home $(IV_HOME)

# A real server, worker and MLflow in a workspace of their own; minutes.
e2e: $(STAMP)
	$(BIN)/pytest -m e2e tests/e2e

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# The page of the tables, which is kept, and the API pages (docs/api/index.html), which are not.
docs: $(STAMP)
	$(BIN)/python -m ivcore.store.table_docs > docs/data.md
	@rm -rf docs/api
	$(BIN)/pdoc --docformat google --output-directory docs/api ivcore
	@echo "docs: $$(wc -l < docs/data.md) lines in docs/data.md, $$(find docs/api -name '*.html' | wc -l) pages in docs/api"

chaos: $(STAMP)
	$(BIN)/pytest -m chaos

# Solve anew what pyproject.toml asks for, in an environment of its own, and write every exact version down.
lock:
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet torch==2.13.0 --group dev --editable .
	.venv-lock/bin/pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock
	@echo "lock: $$(wc -l < requirements.lock) packages"
