# Everything starts here; `make` alone lists it. Needs make and Python 3.11, and nothing else.
#
# An install leaves a stamp in .venv when it has succeeded, and only then. It is done again when pyproject.toml or
# constraints.txt has changed, and not otherwise.

VENV := .venv
BIN := $(VENV)/bin
PIP_QUIET = $(if $(VERBOSE),,-qq) --disable-pip-version-check
PIP_INSTALL = $(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt
CODE = $(foreach folder,learning actors cluster jobs tests benchmarks,$(if $(wildcard $(folder)/*.py),$(folder)))

# To be set on the command line: ARGS goes to the program that is run, PYTHON names an interpreter, VERBOSE=1 shows pip.
ARGS ?=
PYTHON ?=
VERBOSE ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test chaos lint format bench constraints clean

help: ## this list
	@printf 'Millrace: learns from Kafka while it flows, on Ray.\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\nThe first run installs what is needed into .venv, later ones nothing. Options: ARGS="-k drift" (what follows\n'
	@printf 'the command), PYTHON=/path/to/python3.11, VERBOSE=1 (show pip at work). On Linux without a GPU, this avoids\n'
	@printf 'gigabytes of CUDA libraries: make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu\n'

demo: $(VENV)/.stamp-core ## start a broker and a small cluster, stream records, watch it learn (Ctrl-C ends it)
	@exec $(BIN)/python -m jobs.demo $(ARGS)

test: $(VENV)/.stamp-dev ## all tests; ARGS="-m 'not slow'" for the quick ones
	@exec $(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.stamp-dev ## break jobs by seed and compare what comes out; ARGS="--seeds 0:200"
	@exec $(BIN)/python -m tests.cluster.chaos $(or $(ARGS),--seeds 0:200)

lint: $(VENV)/.stamp-dev ## ruff (layout and rules) and mypy (strict), as in CI
	@status=0; \
	$(BIN)/ruff format --check --quiet $(CODE) || { echo 'make format mends the layout.' >&2; status=1; }; \
	$(BIN)/ruff check --quiet $(CODE) || status=1; \
	$(BIN)/mypy $(CODE) || status=1; \
	exit $$status

format: $(VENV)/.stamp-dev ## lay the code out as lint wants it, and let ruff mend what it can
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

bench: $(VENV)/.stamp-dev ## the measurements of docs/ on this machine
	@exec $(BIN)/python -m benchmarks $(ARGS)

constraints: $(VENV)/.stamp-venv ## resolve all versions anew, except torch's, and write constraints.txt
	@echo 'Resolving all dependencies in a fresh environment: about 3 minutes.'
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; trap 'exit 130' INT TERM; \
	grep '^torch==' constraints.txt > "$$fresh/torch"; \
	$(BIN)/python -m venv "$$fresh/venv"; \
	"$$fresh/venv/bin/python" -m pip install $(PIP_QUIET) -c "$$fresh/torch" '.[dev]'; \
	"$$fresh/venv/bin/python" -m pip freeze --all --exclude pip --exclude millrace > "$$fresh/frozen"; \
	sed '/^[^#]/,$$d' constraints.txt > "$$fresh/new"; \
	sed -e 's/+[a-z0-9.]*$$//' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d' "$$fresh/frozen" >> "$$fresh/new"; \
	cp "$$fresh/new" constraints.txt
	@echo 'constraints.txt is written. Run make test before you commit it.'

clean: ## remove caches and build leftovers; .venv and recorded runs stay
	@rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name .venv -prune -o -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# Installing -------------------------------------------------------------------------------------------------------

$(VENV)/.stamp-venv:
	@python=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.11 python3 python); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Millrace needs Python 3.11, and $(if $(PYTHON),PYTHON=$(PYTHON) is not one,neither python3.11 nor python3 is one).' >&2; \
		echo 'Install it (apt install python3.11-venv, brew install python@3.11, pyenv install 3.11,' >&2; \
		echo 'uv python install 3.11) or name it: make demo PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	if [ -x $(BIN)/python ] && ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		echo 'The folder $(VENV) belongs to another Python. Move it away, then try again.' >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv $(VENV) || { \
		echo 'Python could not make a virtual environment; on Debian and Ubuntu: apt install python3.11-venv' >&2; \
		exit 1; \
	}
	@touch $@

$(VENV)/.stamp-core: pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@echo 'Installing into .venv what Millrace runs on (torch, Ray, Kafka client, MLflow, numba): 2 to 5 minutes, once.'
	@$(PIP_INSTALL) . || { echo 'The install failed; what is there is kept. VERBOSE=1 shows more.' >&2; exit 1; }
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-core
	@echo 'Installing into .venv what the checks run on (pytest, hypothesis, ruff, mypy): about half a minute, once.'
	@$(PIP_INSTALL) '.[dev]' || { echo 'The install failed; what is there is kept. VERBOSE=1 shows more.' >&2; exit 1; }
	@touch $@
