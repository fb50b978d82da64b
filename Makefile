# make tables   every table of the paper, on the rendered benchmark (about 50 minutes on two cores)
# make report   the tables and figures on one page, results/report.html
# make smoke    the same workflow cut down to three minutes, in the folder smoke; its numbers mean nothing
# make fuzz     malformed files for MINUTES=30, in parallel, with a summary by place of failure
# make kill     the smoke workflow killed N=50 times at random moments, compared with an undisturbed one
# make gpu      everything that is to be measured on a GPU, with the Python that is there; VIDEO=street.mp4 is tracked too
# make lint     style, types and the direction of imports
# make test     lint and tests, the smoke workflow among them

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
MINUTES ?= 30
N ?= 50
INSTALLED = $(VENV)/.installed
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: tables report smoke test fuzz kill gpu lint clean

tables: $(INSTALLED)
	snakemake --cores $(CORES) --quiet reason --show-failed-logs results/tables.md

report: $(INSTALLED)
	snakemake --cores $(CORES) --quiet reason --show-failed-logs results/report.html

smoke: $(INSTALLED)
	@mkdir -p smoke
	@echo "about three minutes on two cores; what Snakemake prints goes to smoke/snakemake.log"
	@snakemake --cores $(CORES) --quiet reason --show-failed-logs --directory smoke results/tables.md \
	  --config benchmark=smoke > smoke/snakemake.log 2>&1 || { tail -n 40 smoke/snakemake.log; exit 1; }
	@fdta bench workflow --root smoke --benchmark smoke
	@echo "tables: results/tables.md in the folder smoke"

test: lint
	pytest

fuzz: $(INSTALLED)
	python tests/faults/fuzz.py --minutes $(MINUTES)

kill: $(INSTALLED)
	python tests/faults/kill.py --kills $(N)

gpu:
	PYTHONPATH=src:$$PYTHONPATH $(PYTHON) benchmarks/gpu.py --output gpu $(if $(VIDEO),--video $(VIDEO))

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,test]'
	touch $@

clean:
	rm -rf smoke gpu data models tracks detections scores results jobs logs mlflow.db mlartifacts .snakemake
