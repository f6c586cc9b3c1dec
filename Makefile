# make demo     sample archive → small model → scores → report
# make test     the whole test suite
# make install  only the environment (.venv); make lint, make format, make clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := build/demo

.PHONY: install demo test lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "zsad needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@echo "making $(VENV): 7 GB (PyTorch), a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[demo,test,dev]'
	@touch $@

demo: $(DEMO)/archive.made $(DEMO)/model.safetensors
	$(BIN)/python jobs/score_dataset.py --config demo/score.yaml; \
		test $$? -eq 3 || { echo "expected exit code 3: three of the inputs are broken"; exit 1; }
	@$(BIN)/python demo/check_ranking.py --scores $(DEMO)/results/scores.parquet \
		--pairs $(DEMO)/archive_truth/pairs.csv || true # a minute of training may miss one
	@echo "report: $(CURDIR)/$(DEMO)/results/report/index.html"

$(DEMO)/archive.made: $(VENV)/.installed demo/make_archive.py
	$(BIN)/python demo/make_archive.py --output $(DEMO)/archive
	@touch $@

$(DEMO)/model.safetensors: $(VENV)/.installed $(wildcard demo/*.py) demo/clip.safetensors
	@rm -rf $(DEMO)/results # another model's results are never mixed with this one's
	$(BIN)/python demo/train_model.py --output $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build $(VENV) *.egg-info
