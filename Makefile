# Needs Python 3.11 or newer with pip, and make. Everything else is installed into .venv on first use.

PYTHON ?= python3
DEV_DIR ?= dev
PYTEST_OPTIONS ?= -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
JS := tests/clients/js
JS_MADE := $(JS)/node_modules/.made
CODE := homeserver client_api federation storage tests synapse_compat_tests bench examples

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check format lint types layers clients js-client compat bench docs constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(MADE) $(DEV_DIR)/config.yaml ## Run a server for development on http://127.0.0.1:8008
	@echo
	@echo "Heliograph starts on http://127.0.0.1:8008 with its data in $(DEV_DIR)/. It is ready when /health answers 200."
	@echo "The first account, from another terminal:"
	@echo "  $(BIN)/homeserver user create admin --password change-me --admin -c $(DEV_DIR)/config.yaml"
	@echo "Anybody on this machine may also register with a Matrix client. Ctrl-C stops the server."
	@echo
	@exec $(BIN)/homeserver run -c $(DEV_DIR)/config.yaml

$(DEV_DIR)/config.yaml: | $(MADE)
	@mkdir -p $(DEV_DIR)
	@$(BIN)/homeserver generate-config --server-name localhost --data-dir ./data --development > $@

test: $(MADE) ## Run the tests (PYTEST_OPTIONS changes how, TESTS which)
	@$(BIN)/pytest $(PYTEST_OPTIONS) $(TESTS)

check: lint types test ## Run all that is checked before a change goes in (the layers are among the tests)

clients: $(MADE) ## Test with clients by others; those in JavaScript are skipped where they cannot be installed
	@$(MAKE) --no-print-directory js-client || echo "matrix-js-sdk cannot be installed here: its tests are skipped."
	@$(BIN)/pytest $(PYTEST_OPTIONS) tests/clients

js-client: $(JS_MADE) ## Install matrix-js-sdk for the tests; needs npm, and Node 20 or newer

compat: $(MADE) ## Compare with a Synapse, as peer and as oracle; skipped where none can be installed
	@$(MAKE) --no-print-directory .venv-synapse/.made || echo "Synapse cannot be installed here: nothing is compared."
	@if test -e .venv-synapse/.made; then export SYNAPSE_PYTHON=$(CURDIR)/.venv-synapse/bin/python; fi; \
		$(BIN)/pytest --dist no synapse_compat_tests

bench: $(MADE) ## Measure a server of its own (BENCH_OPTIONS changes how; `compare`: beside a Synapse)
	@case " $(BENCH_OPTIONS) " in *" --ours "*) ;; *" compare "*) \
		$(MAKE) --no-print-directory .venv-synapse/.made || echo "Synapse cannot be installed here.";; esac
	@$(BIN)/python -m bench $(BENCH_OPTIONS)

lint: $(MADE) ## Check format and style
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)

types: $(MADE) ## Check the types
	@$(BIN)/mypy

layers: $(MADE) ## Check that imports point down
	@$(BIN)/lint-imports

format: $(MADE) ## Format the code, and mend what can be mended
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

docs: $(MADE) ## Make the generated documents again
	@$(BIN)/homeserver config-reference > docs/configuration.md
	@$(BIN)/homeserver db schema-reference > docs/schema.md
	@$(BIN)/homeserver generate-config --server-name example.org > config.yaml

constraints: ## Choose the newest versions of all dependencies, into constraints.txt
	@$(PYTHON) -m venv --clear .venv-constraints
	@.venv-constraints/bin/pip install --quiet --editable '.[dev]'
	@sed '/^[^#]/d' constraints.txt > .venv-constraints/new.txt
	@.venv-constraints/bin/pip freeze --exclude-editable --all | grep -v '^pip==' >> .venv-constraints/new.txt
	@mv .venv-constraints/new.txt constraints.txt
	@rm -r .venv-constraints

clean: ## Remove what was made, but not the data in dev/
	@rm -rf $(VENV) .venv-synapse $(JS)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info build dist
	@find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

.venv-synapse/.made: synapse_compat_tests/requirements.txt
	@echo "Installing Synapse into .venv-synapse ..."
	@$(PYTHON) -m venv .venv-synapse
	@.venv-synapse/bin/pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

# Exactly what package-lock.json says.
$(JS_MADE): $(JS)/package.json $(JS)/package-lock.json
	@echo "Installing matrix-js-sdk into $(JS)/node_modules ..."
	@npm ci --prefix $(JS) --no-audit --no-fund --loglevel=error
	@touch $@

# Made once, and again when what it is made of changes.
$(MADE): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@
