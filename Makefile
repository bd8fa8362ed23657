# Each target makes or reuses .venv by itself. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Without an NVIDIA driver the CPU build of torch is enough, and 3 GB smaller. TORCH_INDEX= takes PyPI's build.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
PIP = $(PY) -m pip install --quiet --disable-pip-version-check
# Only torch is looked for there: of every other package the index would say no, slowly.
WANTED_TORCH = import tomllib; print(*[d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch")])

.PHONY: demo test lint bench setup

demo: $(STAMP)
	$(PY) -m launch.demo $(if $(DATA),data="$(DATA)")

test: $(STAMP)
	$(PY) -m pytest $(TESTS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	set -e; for file in bench/*.py; do echo "== $$file"; $(PY) "$$file"; done

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) "$$($(PY) -c '$(WANTED_TORCH)')"
endif
	$(PIP) -e '.[dev]'
	@touch $@
