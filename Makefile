# Everything a developer runs. `make` alone lists the targets.
#
# The environment lives in .venv and holds the releases of constraints.txt, whichever installer made it:
# uv where it is on the path, pip elsewhere (`make venv UV=` asks for pip). `make venv PYTHON=/path/to/python`
# chooses the interpreter.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV    ?= $(shell command -v uv 2>/dev/null)
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamp
LANDCOVER := $(BIN)/landcover

# One thread per torch process: two xdist workers with a thread pool each would fight for the same cores.
PYTEST   = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
WORKERS ?= 2
DEVICE  ?= cuda
ARGS    ?=

# Released together: torchvision is compiled against exactly one torch.
TORCH_PINS := torch==2.14.1 torchvision==0.29.1

PYTHON_RANGE := >=3.12,<3.14
PYTHON_FITS  := import sys; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))
# Without uv, the interpreter itself has to be able to make an environment with pip in it (some systems package that apart).
PYTHON_FITS  := $(if $(UV),,import ensurepip, venv; )$(PYTHON_FITS)

# Sets $$python to an interpreter that runs and is in range, or to nothing. Being on the path is not enough: a version
# manager's shim is there for every release, also for those that its current setting refuses to run.
define FIND_PYTHON
python=; for candidate in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.13 python3 python \
		"$${PYENV_ROOT:-$${HOME:-}/.pyenv}"/versions/3.12*/bin/python \
		"$${PYENV_ROOT:-$${HOME:-}/.pyenv}"/versions/3.13*/bin/python \
		/usr/local/bin/python3.12 /usr/local/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.13 \
		/opt/homebrew/bin/python3.12 /opt/homebrew/bin/python3.13 /opt/python*/bin/python3 /opt/*/bin/python3); do \
	if "$$candidate" -c '$(PYTHON_FITS)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
done
endef

# Makes an empty environment in $(1), replacing what is there. A Python that uv has to fetch is the last resort.
define MAKE_VENV
$(FIND_PYTHON); \
if [ -n "$$python" ]; then \
	echo "Making $(1) with $$python"; \
	rm -rf $(1); \
	$(if $(UV),"$(UV)" venv --quiet --python "$$python" $(1),"$$python" -m venv $(1)); \
elif $(if $(UV),[ -n "$(PYTHON)" ] || ! { rm -rf $(1); "$(UV)" venv --python '$(PYTHON_RANGE)' $(1); },:); then \
	echo "No Python $(PYTHON_RANGE) that runs$(if $(UV),, and has the venv and ensurepip modules) was found$(if $(PYTHON), at $(PYTHON)): install Python 3.12 or name one with 'make venv PYTHON=/path/to/python3.12'." >&2; \
	exit 1; \
fi
endef

# Installs $(2) into the environment $(1).
INSTALL = $(if $(UV),"$(UV)" pip install --compile-bytecode --python $(1)/bin/python,$(1)/bin/python -m pip --disable-pip-version-check install) $(2)
# Brings a tool of releases, in an environment of its own: its dependencies are none of the project's.
TOOL    = [ -x build/tools/bin/python ] || { mkdir -p build; $(call MAKE_VENV,build/tools); }; $(call INSTALL,build/tools,--quiet $(1))
FREEZE  = $(if $(UV),"$(UV)" pip freeze --python $(1)/bin/python,$(1)/bin/python -m pip --disable-pip-version-check freeze) --exclude-editable

.PHONY: help venv demo test test-all docs lint format dist sbom audit licences container constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## set up .venv with the package and its tools, as pinned in constraints.txt

# The stamp is made last. `.installing` lies in the environment for as long as an install goes on: one found at the start is
# left from an interrupted install, whose half-copied packages an installer may take for whole ones, so we begin afresh.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if [ -e $(VENV)/.installing ] || ! $(BIN)/python -c '$(PYTHON_FITS)' >/dev/null 2>&1; then \
		$(call MAKE_VENV,$(VENV)); \
	fi; \
	touch $(VENV)/.installing; \
	$(if $(UV),,$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null;) \
	$(call INSTALL,$(VENV),--constraint constraints.txt --editable '.[dev]'); \
	rm $(VENV)/.installing; \
	touch $@

demo: $(STAMP) ## simulate a landscape, train on it, test, and map a bounding box; everything goes to demo/
	bash scripts/demo.sh $(LANDCOVER)

test: $(STAMP) ## run the tests that take seconds (more pytest options: ARGS='-k legend')
	$(PYTEST) $(ARGS)

test-all: $(STAMP) ## run all tests, also those that take minutes
	$(PYTEST) -m '' $(ARGS)

# -W: a warning is an error, so a broken link or a missing page fails. The notebook and the reference are made anew.
docs: $(STAMP) ## build the documentation in build/docs; open build/docs/index.html
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	$(BIN)/python docs/check_pages.py build/docs

lint: $(STAMP) ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## repair style where that is safe, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(STAMP) ## build wheel and sdist into dist/, and try the wheel outside the checkout
	rm -rf dist/*.whl dist/*.tar.gz build/lib
	$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	bash scripts/check_dist.sh

sbom: $(STAMP) ## write dist/sbom.json: all that .venv holds, as CycloneDX
	@set -e; $(call TOOL,cyclonedx-bom); mkdir -p dist; \
	sed "s/^dynamic = .*/version = '$$($(BIN)/python -c 'import landcover_plugin as p; print(p.__version__)')'/" \
		pyproject.toml > build/sbom.toml; \
	build/tools/bin/cyclonedx-py environment $(BIN)/python --pyproject build/sbom.toml --mc-type library \
		--output-reproducible --of JSON --validate -o dist/sbom.json

audit: ## look the pinned releases up among known vulnerabilities; fails where a package cannot be looked up
	@set -e; $(call TOOL,pip-audit); \
	build/tools/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

container: ## build the container image; DEVICE=cpu leaves CUDA out (see Dockerfile), then try the demo in it
	docker build --tag landcover:$(DEVICE) --build-arg DEVICE=$(DEVICE) --build-arg PIP_EXTRA_INDEX_URL .
	docker run --rm --entrypoint bash landcover:$(DEVICE) scripts/demo.sh landcover

licences: $(STAMP) ## renew THIRD_PARTY.md: the licences of the packages that this one needs
	$(BIN)/python scripts/licences.py > THIRD_PARTY.tmp && mv THIRD_PARTY.tmp THIRD_PARTY.md

constraints: ## renew constraints.txt with today's releases, from a fresh environment
	@set -e; \
	$(call MAKE_VENV,build/constraints); \
	$(call INSTALL,build/constraints,--editable '.[dev]' $(TORCH_PINS)); \
	$(call FREEZE,build/constraints) > build/freeze.txt; \
	echo "# Made by 'make constraints': everything that installing '.[dev]' in a fresh environment brings in." > constraints.txt; \
	awk -F '==' 'NF == 2 { name = tolower($$1); gsub(/[._-]+/, "-", name); print name "==" $$2 }' build/freeze.txt \
		| LC_ALL=C sort -t = -k 1,1 >> constraints.txt; \
	rm -r build/constraints build/freeze.txt

clean: ## remove caches, build leftovers and demo/ (.venv, data/ and runs/ stay)
	rm -rf build dist demo docs/reference/generated .mypy_cache .pytest_cache .ruff_cache .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
