# One target a habit. `make demo` and `make test` set everything up by themselves.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
.PHONY: help setup browser demo test lint fast unit lab chaos soak bench lock down clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## virtual environment, and a Docker Engine if none answers
	@sh .ci/environment.sh

browser: ## a headless browser for the tests of the report, where apt-get can install one
	@sh .ci/environment.sh browser

demo: setup ## boot a lab, cut a director's power under load, and judge: exit 0 only if the cluster held
	@.venv/bin/monkeywrench run director-power-cut

test: setup browser ## everything: style, types, unit tests, and the tests on a real lab
	@$(PYTHON) -m tests.groups

lint: setup ## style and types
	@$(PYTHON) -m tests.groups style

fast: setup ## style, types, and the tests without a lab, a browser and Locust
	@MONKEYWRENCH_FEW_EXAMPLES=1 $(PYTHON) -m tests.groups style fast

unit: setup browser ## the tests that need no lab
	@$(PYTHON) -m tests.groups fast mutations load

lab: setup ## the tests of the lab itself
	@$(PYTHON) -m tests.groups images lab

chaos: setup ## the scenarios
	@$(PYTHON) -m tests.groups images scenarios

soak: setup ## long tests on a real lab: faults of the cluster as a whole, workers, all profiles (40 min)
	@$(PYTHON) -m pytest -o norecursedirs=.git tests/soak

bench: setup ## speed and size, beside the same number of idle containers
	@$(PYTHON) -m tests.bench

lock: ## write requirements.lock anew from pyproject.toml
	@$(PYTHON) -m uv pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements.lock

down: ## remove all labs
	@.venv/bin/monkeywrench down --all

clean: ## remove the virtual environment and all run directories
	@rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache *.egg-info
