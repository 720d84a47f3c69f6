# `make help` lists what there is. Everything goes into .venv; nothing is installed twice.

PYTHON ?= python3
# For example PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" on a Linux machine without a GPU.
PIP_ARGS ?=
# For example ARGS="--wearables 20 --seconds 60".
ARGS ?=
DATA ?= ../shared/data/har
# Tests run in so many processes. More than two disturb each other where they measure time.
WORKERS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test check format train bench speed bluez vendor screenshots docs clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

demo: .venv/.demo  ## Install, then show wearables, live recognition and the bandwidth saved (Ctrl-C ends it)
	@$(BIN)/gammawear demo $(ARGS)

test: .venv/.dev  ## Install, then run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: .venv/.dev  ## Lint, types and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/.dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

train: .venv/.dev  ## Train the bundles that ship, anew, into runs/ (needs the data sets in DATA)
	@$(BIN)/gammawear train har --data $(DATA)/sp_sw_har.zip --rate 12.5 --rate-weight 0.05 --refit $(ARGS)
	@$(BIN)/gammawear train har --data $(DATA)/wisdm2019_watch.zip --rate-weight 0.05 --refit --epochs 12 --batch 128 \
		--dropout 0.4 $(ARGS)

bench: .venv/.dev  ## A small accuracy table (needs sp_sw_har.zip in DATA; all of it: docs/results.md), ten minutes of the page
	@$(BIN)/python -m benchmarks.small --data $(DATA) $(ARGS)
	@$(BIN)/python -m benchmarks.page

speed: .venv/.dev  ## Measure speed; results go to benchmarks/results/
	@$(BIN)/python -m benchmarks.speed $(ARGS)

bluez: .venv/.dev  ## The bridge on real BlueZ in a virtual machine (Debian, root; docs/devices.md)
	@tests/bluez/run.sh

vendor: node_modules/.vendor  ## Copy what the live page takes from npm into gateway/live/static/vendor (needs npm)
	@cp node_modules/uplot/dist/uPlot.iife.min.js node_modules/uplot/dist/uPlot.min.css gateway/live/static/vendor/
	@cp node_modules/uplot/LICENSE gateway/live/static/vendor/LICENSE-uPlot.txt

screenshots: .venv/.dev  ## Pictures of the live page for docs/ (needs Chromium)
	@$(BIN)/python -m benchmarks.screenshots $(ARGS)

docs: .venv/.docs  ## The documentation as a site, in site/index.html
	@$(BIN)/python -m mkdocs build

clean:  ## Remove the environment and caches
	rm -rf .venv site node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/.python:
	@echo "creating .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gammawear needs Python 3.11 or later")'
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.python pyproject.toml constraints.txt
	@echo "installing into .venv: PyTorch is by far the largest part, this takes a minute or a few"
	@$(PIP) --editable '.[demo]'
	@touch $@

.venv/.dev: .venv/.demo
	@echo "installing the development tools into .venv"
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/.docs: .venv/.python pyproject.toml
	@echo "installing what makes the site into .venv"
	@$(PIP) --editable '.[docs]'
	@touch $@

node_modules/.vendor: package.json package-lock.json
	@npm ci --no-audit --no-fund --silent
	@touch $@
