# The course's commands. Each makes the environment in .venv first, and renews it when what it is made from changes.
#   PYTHON=python3.12   the interpreter to make it with        TORCH=cpu   the CPU-only torch, a small download
#   LAB_ARGS, PYTEST_ARGS, BENCH_ARGS, GRADE_ARGS   are handed on as they are

export PATH := $(CURDIR)/.venv/bin:$(PATH)
python := .venv/bin/python

# Triton's interpreter multiplies many small matrices; threads that wait for each other make that up to 1000 times slower.
export OPENBLAS_NUM_THREADS ?= 1

# JupyterLab refuses to start as root unless told. Who is root on their own machine or in a container is told nothing new.
lab_root := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help environment doctor lab test test-gpu bench lint grade release clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo
	@echo "  Options: TORCH=cpu (small download), PYTHON=python3.12, LAB_ARGS, PYTEST_ARGS, BENCH_ARGS, GRADE_ARGS"

environment: ## make the environment and nothing else
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh tools/environment.sh

doctor: environment ## what this machine can do, and what is missing
	@$(python) -m course.cli doctor

lab: environment ## open JupyterLab on the lessons
	@$(python) -m course.cli start
	$(python) -m jupyterlab --LabApp.default_url="/lab/tree/$$($(python) -m course.cli start --print-path)" $(lab_root) $(LAB_ARGS)

# Two processes share the machine's cores; threads inside each would only wait for one another.
test: environment ## every test that needs no GPU
	OMP_NUM_THREADS=1 $(python) -m pytest -n 2 --dist loadgroup -m "not gpu" $(PYTEST_ARGS)

test-gpu: environment ## the kernels, the checks, the judge and the lessons on this machine's GPU
	@$(python) -c 'import kernels, sys; sys.exit(f"make test-gpu needs a CUDA GPU; kernels run on: {kernels.describe()}" if kernels.INTERPRET else 0)'
	$(python) -m pytest tests/kernels tests/bench tests/autograder/test_checks.py tests/autograder/judge/test_gpu.py \
		tests/source/test_notebooks_run.py tests/course/recording tests/course/serving tests/course/test_gpu_timeline.py \
		tests/course/test_recorded_schedules.py tests/course/test_roofline.py tests/course/test_trace_launches.py \
		tests/course/widgets/test_split_timeline.py $(PYTEST_ARGS)

bench: environment ## measure the kernels on this machine
	$(python) -m bench $(BENCH_ARGS)

lint: environment ## format, lint and types
	$(python) -m ruff format --check
	$(python) -m ruff check
	$(python) -m mypy

release: environment ## source/NN_name.py -> release/NN_name/NN_name.ipynb
	$(python) -m autograder.build

grade: environment ## a sample class judged in a sandbox and taken into nbgrader: feedback, and a table with reasons
	$(python) -m autograder.cli grade --sample-class $(GRADE_ARGS)

clean: ## remove the environment and everything generated (never work/, never a gradebook)
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
