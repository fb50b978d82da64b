# make tables   every table of the paper, on the rendered benchmark (about 50 minutes on two cores)
# make smoke    the same workflow cut down to a few minutes; its numbers mean nothing
# make test     style and tests, the smoke workflow among them

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
INSTALLED = $(VENV)/.installed
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: tables smoke test lint clean

tables: $(INSTALLED)
	snakemake --cores $(CORES) results/tables.md

smoke: $(INSTALLED)
	snakemake --cores $(CORES) results/tables.md --config benchmark=smoke

test: lint
	pytest

lint: $(INSTALLED)
	ruff check .
	ruff format --check .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,test]'
	touch $@

clean:
	rm -rf data models tracks detections scores results settings logs mlflow.db mlartifacts .snakemake
