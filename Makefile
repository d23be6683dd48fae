# Canopus. `make run` makes a map of generated data, `make test` runs the tests; both set up what they need.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 4200
WAREHOUSE ?= ./warehouse
WEIGHTS ?= ./weights
# tests of one file stay in one process, which makes what they share once
BESIDE := -n auto --dist loadfile
SITES  := -0.997,52.204,-0.509,52.237

# What the user's shell holds must not steer a run: a stale PREFECT_API_URL points at a server that is not there.
unexport $(filter PREFECT_%,$(.VARIABLES))
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV CONDA_PREFIX
unexport PIP_TARGET PIP_PREFIX PIP_USER PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test slow chaos lint format up bench weights clean distclean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.for-run ## make a canopy map of a generated archive; prints where it lies
	@$(BIN)/canopus run

up: $(VENV)/.for-run ## start server, worker and deployments on loopback (PORT=4200 WAREHOUSE=./warehouse)
	@exec $(BIN)/canopus up --warehouse $(WAREHOUSE) --port $(PORT)

test: $(VENV)/.for-test ## run the tests that take seconds
	@$(BIN)/python -m pytest -q $(BESIDE) --durations=10 -m "not slow and not chaos" $(ARGS)

slow: $(VENV)/.for-test ## run the tests that take longer
	@$(BIN)/python -m pytest -q $(BESIDE) --durations=10 -m "slow and not chaos" $(ARGS)

chaos: $(VENV)/.for-test ## kill ingest and map again and again, and compare with an undisturbed run
	@$(BIN)/python -m pytest -q --durations=10 -m chaos --timeout=3600 $(ARGS)

bench: $(VENV)/.for-test ## time the steps; the tables are in docs/performance.md
	@$(BIN)/python -m pytest -q -s benchmarks -m "" --benchmark-enable --timeout=3600 $(ARGS)

weights: $(VENV)/.for-run ## train the weights that are shipped anew (hours on a CPU; goes on where it was stopped)
	@set -e; for n in 0 1 2 3; do \
	    test -e $(WEIGHTS)/archive-$$n/catalog.json || $(BIN)/canopus simulate $(WEIGHTS)/archive-$$n --seed $$((101 + n)) \
	        --size-km 2.5 --years 4 --west $$((636880 + 10240 * n)) --south 5786740; \
	    $(BIN)/canopus ingest --catalog $(WEIGHTS)/archive-$$n/catalog.json --aoi $(WEIGHTS)/archive-$$n/area.geojson \
	        --start 2020-01-01 --end 2030-01-01 --warehouse $(WEIGHTS)/warehouse; \
	done
	@config=flows/configs/pretrain_earthpt.yaml; \
	    $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' && config=flows/configs/pretrain_earthpt_gpu.yaml; \
	    $(BIN)/canopus train earthpt --config $$config --name earthpt-small --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train earthpt --config flows/configs/distil_earthpt.yaml --aoi=$(SITES) --pixels 40000 \
	    --prior-share 0.8 --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train canopy --backbone earthpt-distilled --fresh-head --dropout 0.1 --hidden 128 --reach 7 --members 3 --places 437 --steps 15222 --batch 24 --name canopy-distilled \
	    --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train canopy --backbone earthpt-small --fresh-head --dropout 0.1 --hidden 128 --reach 7 --members 2 --places 437 --steps 15222 --batch 24 --name canopy-small \
	    --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train profiles --name profiles-small --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train features --name galaxy-features-small --warehouse $(WEIGHTS)/warehouse
	@$(BIN)/canopus train diffusion --name galaxy-diffusion-small --warehouse $(WEIGHTS)/warehouse
	@for name in earthpt-small earthpt-distilled canopy-small canopy-distilled profiles-small galaxy-features-small \
	    galaxy-diffusion-small; do \
	    $(BIN)/canopus export $$name --layout canopus --out $(WEIGHTS)/$$name --warehouse $(WEIGHTS)/warehouse || exit 1; done

lint: $(VENV)/.for-test ## ruff, mypy, codespell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell flows tasks models storage tests benchmarks docs README.md Makefile

format: $(VENV)/.for-test ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove caches and build products; keeps warehouse, archive and .venv
	@rm -rf build dist *.egg-info site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	@rm -rf $(VENV)

# The environment. A stamp says which extras are in; it is older than pyproject.toml or the lock when they change.

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; as root: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.for-run: pyproject.toml requirements.lock $(BIN)/python
	@echo "installing what runs need into $(VENV): a minute or two, longer where torch comes with CUDA"
	@$(BIN)/python -m pip install -qq --progress-bar off -e . -c requirements.lock
	@echo "installed"
	@touch $@

$(VENV)/.for-test: pyproject.toml requirements.lock $(BIN)/python
	@echo "installing what runs and tests need into $(VENV): two or three minutes, longer where torch comes with CUDA"
	@$(BIN)/python -m pip install -qq --progress-bar off -e ".[sky,test]" -c requirements.lock
	@echo "installed"
	@touch $@ $(VENV)/.for-run
