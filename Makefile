# Every target sets up what it needs; Python 3.11, 3.12 or 3.13 is all that must be there.
PYTHON ?= python3
# Packages come from .venv and go there, whatever pip and Python are told elsewhere; text is UTF-8.
unexport PYTHONPATH PYTHONHOME PYTHONOPTIMIZE PYTHONWARNINGS PIP_TARGET PIP_PREFIX PIP_ROOT MPLBACKEND
# Else each of a hundred processes would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1
BIN := .venv/bin
READY := .venv/ready
# one process for each core, which takes from another what that has not begun
PYTEST := $(BIN)/pytest --numprocesses logical --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help book paper test test-everywhere fuzz verify site-test lint format bench clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

book: $(READY)  ## run the notebooks at quick size and build the book
	$(BIN)/snakemake --config profile=quick
	@$(BIN)/python -c 'from pathlib import Path; print("Open", Path("_build/html/index.html").resolve().as_uri())'

paper: $(READY)  ## run the notebooks at the paper's full size and build the book
	@echo "This takes about half an hour on two cores. Interrupted, it goes on where it was when called again."
	$(BIN)/snakemake --config profile=paper
	@$(BIN)/python -c 'from pathlib import Path; print("Open", Path("_build/html/index.html").resolve().as_uri())'

test: $(READY)  ## run the tests
	$(PYTEST)

test-everywhere: $(READY)  ## run the tests under foreign settings, in odd folders, on a cluster, some ten minutes
	EVERYWHERE=1 $(PYTEST) --dist loadgroup tests/test_everywhere.py

fuzz: $(READY)  ## generate more than a million inputs to all public functions, some five minutes
	$(PYTEST) tests/test_fuzz.py --hypothesis-profile=deep

verify: $(READY)  ## the adversary's tests at full size: restarts, certificates, exports, threads; an hour
	VERIFY=1 $(PYTEST) -rP tests/test_hostile.py

site-test: $(READY)  ## test the built book in a real browser, after make book
	SITE=_build/html $(PYTEST) --dist loadgroup tests/test_site.py

lint: $(READY)  ## check style, types, and that notebooks hold no outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find book -name '*.ipynb' -not -path '*/.*' -exec $(BIN)/nbstripout --verify --keep-id {} +

format: $(READY)  ## mend style, and strip the notebooks of outputs
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find book -name '*.ipynb' -not -path '*/.*' -exec $(BIN)/nbstripout --keep-id {} +

bench: $(READY)  ## time the solvers side by side, and soak them (benchmarks/*.py)
	@$(BIN)/pip install --quiet --requirement benchmarks/requirements.txt
	@set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

clean:  ## remove all that was computed and built; .venv stays
	rm -rf _build _runs .snakemake

# --clear: what other pins left behind is not the pinned environment. --no-deps: every package is
# pinned, and the check sees whether they agree.
# The path to nomalib is relative: at its start Python reads it in the locale's encoding, which may
# have no é.
# --no-compile: Python compiles what is imported, a fifth of the ten thousand files, when it is.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) tools/check_python.py
	@echo "Setting up .venv; this takes a minute or two."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --no-deps --no-compile --requirement requirements.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@echo ../../../.. | tee .venv/lib/python3*/site-packages/nomalib.pth > /dev/null
	@$(BIN)/pip check
	@touch $@
