# tiltbox: `make run` sets up and trains, tests and compares all variants on the mini set; `make test` runs
# the tests. Set PYTHON to choose the interpreter, CORES to limit the cores. Machines without internet:
# docs/offline.md.

PYTHON ?= python3
CORES ?= all
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
TORCH := torch==2.13.0
TRITON := triton==3.6.0

.DEFAULT_GOAL := help
.PHONY: help setup wheelhouse whole run test test-oldest test-kills test-slurm coverage lint docs format clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tiltbox needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
ifneq ($(findstring --system-site-packages,$(VENV_OPTIONS)),)
# Where PYTHON is itself one of a virtual environment, the option shows what is outside of that.
	$(PYTHON) -c 'import site; print(*site.getsitepackages(), sep="\n")' \
	    > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
endif
ifdef WHEELHOUSE
	@$(PIP) install --no-index --find-links $(WHEELHOUSE) --no-deps --requirement $(WHEELHOUSE)/requirements.txt \
	    || { echo 'make: $(VENV) is not complete: docs/offline.md says what to do'; exit 1; }
	$(PIP) install --no-index --find-links $(WHEELHOUSE) --no-deps --editable .
else
# torch comes first: an existing build (of a GPU machine, with VENV_OPTIONS=--system-site-packages) is kept,
# and mmcv, which is built without access to torch, needs no compiler.
	$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) install $(TORCH)
	$(PIP) install --constraint constraints.txt --editable '.[test,dev]'
# mmcv asks for opencv-python, which writes to the same folder, and needs libGL, which servers may not have.
	$(PIP) install --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
endif
	@touch $@

setup: $(VENV)/ready ## create .venv with everything that tiltbox needs

wheelhouse: ## collect all but torch for machines without internet: PYTHON_VERSION, PLATFORM, PARTS, PRESENT
	@$(PYTHON) tools/wheelhouse.py $(or $(WHEELHOUSE),wheelhouse) \
	    $(if $(PYTHON_VERSION),--python $(PYTHON_VERSION)) $(if $(PLATFORM),--platform $(PLATFORM)) \
	    $(if $(PARTS),--parts $(PARTS)) $(if $(PRESENT),--present $(PRESENT))

# A wheelhouse may be without them: stages work, these targets do not.
whole: setup
	@$(BIN)/python -c 'import snakemake' 2>/dev/null \
	    || { echo 'Snakemake, DVC and MLflow are not installed: collect with PARTS=all (docs/offline.md)'; exit 1; }

run: whole ## set up, run the whole workflow on the mini set, print the comparison
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) all_variants --config dataset=mini
	@$(BIN)/tiltbox report results/mini
	@echo
	@echo "Next: open results/mini/leaderboard.html"
	@echo "      . $(BIN)/activate && mlflow ui    compares the runs in a browser;"
	@$(BIN)/tiltbox tracking mini
	@echo "      snakemake --config dataset=path/to/yours.yaml    runs on your own images"

# PyTorch for GPUs brings Triton. Elsewhere its interpreter runs the kernels, for tests alone.
test: whole ## set up and run all tests but those on SLURM
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) install $(TRITON) \
	    || echo 'without Triton, the tests of its kernels are skipped'
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder \
	    -m 'not slurm'

# In an environment of its own; what these versions need in turn is as new as it can be.
$(OLDEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip --quiet install $(TORCH)
	$(OLDEST)/bin/python -c 'import triton' 2>/dev/null || $(OLDEST)/bin/pip --quiet install $(TRITON)
	$(OLDEST)/bin/python tools/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/pip --quiet install --constraint $(OLDEST)/oldest.txt --editable '.[test]' snakefmt
	$(OLDEST)/bin/pip --quiet install --constraint $(OLDEST)/oldest.txt --force-reinstall --no-deps \
	    opencv-python-headless
	@touch $@

test-oldest: $(OLDEST)/ready ## run the same tests with the oldest versions that are allowed
	@PATH="$(CURDIR)/$(OLDEST)/bin:$$PATH" OMP_NUM_THREADS=1 pytest -n auto --dist loadfile \
	    --no-loadscope-reorder -m 'not slurm' -o filterwarnings=default

test-slurm: whole ## run the workflow on a SLURM that is started for it, in minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" pytest -n 0 -m slurm tests/workflow/test_slurm.py

# KILLS and SEED set how many and which; a seed that found something finds it again on an equally fast machine.
test-kills: whole ## kill the workflow at random moments, repeat it, compare the results
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/workflow/killing.py $$(mktemp -d)/kills \
	    --kills $(or $(KILLS),100) $(if $(SEED),--seed $(SEED))

# What runs in processes of its own, as in the tests of the workflow, does not count. TESTS limits the tests.
coverage: whole ## show the share of lines that tests run in their own process, by package
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 pytest -n auto --dist loadfile --no-loadscope-reorder \
	    -m 'not own_processes' --ignore tests/workflow --ignore tests/test_benchmarks.py \
	    --cov --cov-report= $(TESTS)
	@for part in src/tiltbox/[a-z]*/ 'src/tiltbox/*.py' src/tiltbox/; do \
	    printf '%4s %%  %s\n' "$$($(BIN)/coverage report --format=total --include "$$part*")" "$$part"; \
	done

lint: whole ## check style, spelling, types, imports between packages and workflow
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/codespell
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

docs: setup ## build the documentation as a site, into site/index.html
	@$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: setup ## format code and workflow
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . ; $(BIN)/snakefmt Snakefile workflow

clean: ## remove data, results and logs of the mini set, which can be made again
	rm -rf data/mini results/mini logs/mini logs/benchmarks/mini
