# make demo    the miniature world from CLIP to open-vocabulary detections (FRESH=1 trains its CLIP anew)
# make test    the tests                     (ARGS="-k splits" passes pytest options)
# make fuzz    damaged input of every kind    (N=10000 inputs per kind of file, at random)
# make lint    ruff, check and format
# make env     only the environment; `denserc check-env` tells about it
#
# Each target builds the environment when it is missing. VENV=dir puts it elsewhere or uses an existing one,
# PYTHON=python3.11 chooses the interpreter that it is built with, THREADS=n the number of CPU threads.

VENV ?= .venv
PYTHON ?=
FRESH ?=
ARGS ?=
THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.physicalcpu 2>/dev/null || echo 2)
N ?= 1000

py := $(VENV)/bin/python
stamp := $(VENV)/.denserc-ready
# Idle threads sleep: spinning, they slow every step many times over on a machine with other work.
OMP_WAIT_POLICY ?= PASSIVE
export OMP_WAIT_POLICY
threads := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS)

.PHONY: help env demo test fuzz lint format clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q'

env: $(stamp)

$(stamp): setup.cfg setup.py scripts/bootstrap.sh
	@PYTHON="$(PYTHON)" bash scripts/bootstrap.sh "$(VENV)"
	@touch "$@"

demo: $(stamp)
	$(threads) $(py) -m denserc demo $(if $(filter-out 0,$(FRESH)),--fresh) $(ARGS)

test: $(stamp)
	$(threads) $(py) -m pytest $(ARGS)

fuzz: $(stamp)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(py) -m pytest tests/fuzz --fuzz $(N) $(ARGS)

lint: $(stamp)
	$(py) -m ruff check .
	$(py) -m ruff format --check .

format: $(stamp)
	$(py) -m ruff check --fix .
	$(py) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
