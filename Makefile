# make run    the whole collection, in English and in Chinese: executed, the ledger printed, pages written to build/site/
# make test   the tests, and every lesson as a test, one of them in Chinese too
# make lab    JupyterLab on the notebooks
# make bench  all benchmarks, into benchmarks/records/ and docs/ (over two hours; make bench QUICK=1: less than one)
# make save   execute the notebooks; keep their outputs, minutes and the map of lessons (for authors)
# make workshop MINUTES=90   notebooks, agenda and wheels of a workshop of 45, 90 or 180 minutes, into build/workshop/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

# a reader's guesses are not overwritten by those that stand in the lessons
PYTEST := env -u ZSC_CHECKPOINT -u ZSC_LANGUAGE ZSC_GUESSES=$(CURDIR)/build/guesses.json $(BIN)/python -m pytest --durations=15 --durations-min=1
# what takes longest begins first, so that neither of the two processes waits for the other in the end
SLOWEST := tests/journeys/test_scaling.py tests/journeys/test_levels.py tests/unit/test_plan.py

# every English lesson, and of the Chinese edition, whose code is the same, the first one
LESSONS := notebooks/*.ipynb notebooks/zh/00_start_here.ipynb

# oneDNN and torch's kernels are lowered to AVX2 to try that level: then MKL too, which multiplies fp32
ifeq ($(ONEDNN_MAX_CPU_ISA),AVX2)
export MKL_ENABLE_INSTRUCTIONS ?= AVX2
endif

.PHONY: run test lab bench save workshop clean

run: $(READY)
	$(BIN)/python scripts/run_notebooks.py

test: $(READY)
	$(PYTEST) $(SLOWEST) tests --numprocesses=2 --dist=loadfile --no-loadscope-reorder; tests=$$?; \
	$(PYTEST) $(LESSONS) --nbval --nbval-current-env --nbval-cell-timeout=120 && exit $$tests

lab: $(READY)
	$(BIN)/jupyter trust notebooks/*.ipynb notebooks/zh/*.ipynb  # else JupyterLab takes the slider of lesson 01 away
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[bench]'
	$(BIN)/python benchmarks/run_all.py $(if $(QUICK),--quick)

save: $(READY)
	env -u ZSC_CHECKPOINT $(BIN)/python scripts/run_notebooks.py --save --edition en
	$(BIN)/python scripts/minutes.py --write
	$(BIN)/python scripts/lesson_map.py
	$(BIN)/python scripts/edition.py minutes
	env -u ZSC_CHECKPOINT $(BIN)/python scripts/run_notebooks.py --save --edition zh

MINUTES ?= 90
workshop: $(READY)
	$(BIN)/python scripts/workshop.py --minutes $(MINUTES)

# torch comes first and by its exact version: asked for through other packages, pip may choose another build
$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[notebooks,scale,dev]'
	touch $(READY)

clean:
	rm -rf build .venv
