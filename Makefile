# make demo           sample archive → scores of the embedded model → report
# make test           the whole test suite; make test-slow: those that take minutes
# make install        only the environment (.venv); make lint, make format, make clean
# make evaluate-tiny  test the embedded model; make tiny: make it anew, from random weights

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := build/demo
TINY   := build/tiny

.PHONY: install demo test test-slow tiny evaluate-tiny lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "zsad needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@echo "making $(VENV): 7 GB (PyTorch), a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[demo,test,dev]'
	@touch $@

demo: $(DEMO)/archive.made
	$(BIN)/python jobs/score_dataset.py --config demo/score.yaml; \
		test $$? -eq 3 || { echo "expected exit code 3: three of the inputs are broken"; exit 1; }
	@$(BIN)/python demo/check_ranking.py --scores $(DEMO)/results/scores.parquet \
		--pairs $(DEMO)/archive_truth/pairs.csv || true # a small model may miss one
	@echo "report: $(CURDIR)/$(DEMO)/results/report/index.html"

$(DEMO)/archive.made: $(VENV)/.installed demo/make_archive.py
	$(BIN)/python demo/make_archive.py --output $(DEMO)/archive
	@touch $@

tiny: $(VENV)/.installed
	rm -rf $(TINY)
	$(BIN)/python demo/draw_sets.py --output $(TINY)/sets
	$(BIN)/python demo/pretrain_clip.py --output $(TINY)/clip.safetensors
	$(BIN)/python jobs/train.py --config demo/tiny.yaml
	cp $(TINY)/training/model.safetensors zsad/weights/tiny.safetensors
	$(MAKE) evaluate-tiny

evaluate-tiny: $(VENV)/.installed
	$(BIN)/python demo/draw_sets.py --output $(TINY)/sets --sets test_industrial test_brain
	$(BIN)/python jobs/evaluate.py --checkpoint tiny --domain industrial \
		--data $(TINY)/sets/test_industrial/meta.jsonl --output $(TINY)/test_industrial
	$(BIN)/python jobs/evaluate.py --checkpoint tiny --domain medical \
		--data $(TINY)/sets/test_brain/meta.jsonl --output $(TINY)/test_brain

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build $(VENV) *.egg-info
