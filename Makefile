# The commands for users and developers; `make help` lists them. Each target first sets up .venv in this folder if needed;
# nothing is installed elsewhere. Works with GNU make 3.81 and later and any POSIX shell.

# The Python for .venv. Empty: the one .venv has, else the first suitable one of python3.11, 3.12, 3.13 and python3.
PYTHON ?=
# Free disk required before a download. .venv takes 1.6 GB with the CPU build of torch. If pip finds no CPU build on Linux,
# it installs the CUDA build, which needs about 10 GB (make NEED_GB=10 ...).
NEED_GB ?= 3
# Number of test processes, and further arguments for pytest: make test PYTEST_ARGS="-k tokenizer -x"
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
TESTS = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
INPUTS := pyproject.toml constraints.txt requirements-parity.txt

# After installation nothing uses the network, and nothing from outside .venv is imported.
export HF_HUB_OFFLINE := 1
export PIP_USER := 0
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-unitary test check lint style format docs install install-dev benchmark clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 - \2/p' Makefile | awk -F ' - ' '{ printf "%-20s %s\n", $$1, $$2 }'

# ---- The product ----------------------------------------------------------------------------------------------------

demo: install ## generate data, train, evaluate and report in about 2 minutes on two CPU cores; results in artifacts/demo
	$(RUN) scripts/generate_dataset.py hydra.run.dir=. hydra.output_subdir=null datasets=quick_test_srv datasets.output_path=artifacts/demo/dataset
	$(RUN) scripts/train_model.py hydra.run.dir=. hydra.output_subdir=null training=quick_test_srv training.general.dataset=artifacts/demo/dataset training.general.output_path=artifacts/demo/model training.general.overwrite=true
	$(RUN) scripts/evaluate_model.py hydra.run.dir=. hydra.output_subdir=null evaluation=quick_test_srv evaluation.dataset=artifacts/demo/dataset evaluation.model_dir=artifacts/demo/model evaluation.save_folder=artifacts/demo
	$(RUN) -m quantum_diffusion report hydra.run.dir=. hydra.output_subdir=null 'report.title=Demo of circuits with given Schmidt rank vectors' 'report.sources=[artifacts/demo,artifacts/demo/model,artifacts/demo/dataset]' report.output_path=artifacts/demo/report.html report.overwrite=true

demo-unitary: install ## the same for a compiler, evaluated on unseen unitaries; results in artifacts/demo-unitary
	$(RUN) scripts/generate_dataset.py hydra.run.dir=. hydra.output_subdir=null datasets=quick_test_unitary_eval datasets.output_path=artifacts/demo-unitary/targets
	$(RUN) scripts/generate_dataset.py hydra.run.dir=. hydra.output_subdir=null datasets=quick_test_unitary datasets.exclude=artifacts/demo-unitary/targets datasets.output_path=artifacts/demo-unitary/dataset
	$(RUN) scripts/train_model.py hydra.run.dir=. hydra.output_subdir=null training=quick_test_unitary training.general.dataset=artifacts/demo-unitary/dataset training.general.output_path=artifacts/demo-unitary/model training.general.overwrite=true
	$(RUN) scripts/evaluate_model.py hydra.run.dir=. hydra.output_subdir=null evaluation=quick_test_unitary evaluation.dataset=artifacts/demo-unitary/targets evaluation.model_dir=artifacts/demo-unitary/model evaluation.save_folder=artifacts/demo-unitary
	$(RUN) -m quantum_diffusion report hydra.run.dir=. hydra.output_subdir=null 'report.title=Demo of circuits for given unitaries' 'report.sources=[artifacts/demo-unitary,artifacts/demo-unitary/model,artifacts/demo-unitary/dataset,artifacts/demo-unitary/targets]' report.output_path=artifacts/demo-unitary/report.html report.overwrite=true
	@echo "artifacts/demo-unitary/circuits.png compares targets with the shortest circuits found; success.png shows the success rates"

# ---- The checks -----------------------------------------------------------------------------------------------------

test: check ## everything that CI runs; the same as check

check: style ## lint and all tests; under 10 minutes on two CPU cores after installation
	@# mypy runs on one core while pytest collects the tests
	@echo "$(BIN)/mypy & $(TESTS)"; $(BIN)/mypy & types=$$!; $(TESTS); tests=$$?; \
	wait $$types || { echo "error: mypy failed, see above"; exit 1; }; exit $$tests

lint: style ## ruff (format and rules), the import contract and mypy --strict, without tests
	$(BIN)/mypy

style: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

format: install-dev ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: install-dev ## update docs/configuration.md from the schema and build the site in build/docs; warnings are errors
	$(RUN) docs/make_configuration.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env --doctree-dir build/doctrees docs build/docs
	@echo "open build/docs/index.html"

benchmark: install-dev ## run the speed measurements (benchmarks/*.py) one after the other
	@set -e; for file in benchmarks/*.py; do echo "$(RUN) $$file"; $(RUN) "$$file"; done

# ---- The environment ------------------------------------------------------------------------------------------------

install: ## create .venv with the package (editable) and its pinned dependencies
	@$(call provide,run,-e .)

install-dev: ## the same, with the tools for tests and checks
	@$(call provide,dev,-e '.[dev]')

clean: ## remove caches and build products; keeps .venv, artifacts, data sets and models
	rm -rf build dist htmlcov .coverage .coverage.* coverage.xml .benchmarks
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call provide,LEVEL,REQUIREMENT): bring .venv to LEVEL (run or dev), or do nothing if it is there already.
# The stamp .venv/.LEVEL records the inputs: the contents of INPUTS, this folder, the Python. It is written last, so a failed
# or killed installation leaves none; one killed in the middle (.unfinished) starts over.
# pip's output goes to .venv/.log and is shown if it fails.
# The build tools are installed first, and the package is built with them (--no-build-isolation): pinned, and offline later.
# Python compiles what it imports; letting pip compile everything (--compile) takes as long as the rest of the installation.
define provide
state() { cat $(INPUTS) | cksum; pwd -P; $(BIN)/python -VV 2>&1; }; \
wanted() { [ -z "$(PYTHON)" ] || [ "$$("$(PYTHON)" -VV 2>&1)" = "$$($(BIN)/python -VV 2>&1)" ]; }; \
usable() { [ ! -e $(VENV)/.unfinished ] && grep -qsF "$$(pwd -P)/$(BIN)/" $(BIN)/pip \
	&& $(BIN)/python scripts/check_machine.py 2>/dev/null && wanted; }; \
[ -f $(VENV)/.$(1) ] && [ "$$(state)" = "$$(cat $(VENV)/.$(1))" ] && wanted && exit 0; \
if ! usable; then \
	python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3; do \
		[ -z "$(PYTHON)" ] && "$$candidate" -c pass >/dev/null 2>&1 || continue; \
		"$$candidate" scripts/check_machine.py 2>/dev/null && python="$$candidate" && break; \
		python="$${python:-$$candidate}"; \
	done; \
	"$${python:-python3}" -c pass >/dev/null 2>&1 || { \
		echo "error: $${python:-python3} does not run, but Python 3.11, 3.12 or 3.13 is needed: install one" \
			"and give it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
	"$$python" scripts/check_machine.py $(NEED_GB) || exit 1; \
	echo "making $(VENV) with $$("$$python" -V)"; \
	"$$python" -m venv --clear $(VENV) || exit 1; \
fi; \
rm -f $(VENV)/.run $(VENV)/.dev; \
touch $(VENV)/.unfinished; \
echo "installing into $(VENV), a few minutes where packages have to be downloaded"; \
{ $(PIP) install --no-compile -c constraints.txt hatchling setuptools \
	&& $(PIP) install --no-compile -c constraints.txt --no-build-isolation $(2) \
	&& { [ $(1) = run ] || $(PIP) install --no-compile --no-deps -r requirements-parity.txt; }; } >$(VENV)/.log 2>&1; \
status=$$?; \
rm -f $(VENV)/.unfinished; \
[ $$status = 0 ] || { \
	cat $(VENV)/.log >&2; \
	echo "error: the installation did not finish, for the reason above: mend it and run the same command again" >&2; exit 1; }; \
state > $(VENV)/.run; \
[ $(1) = run ] || state > $(VENV)/.dev
endef
