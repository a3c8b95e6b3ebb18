# `make demo` shows the main job, `make test` tests everything; both do their
# own set-up. SETUP=no keeps them from installing tools. See CONTRIBUTING.md.

PYTHON ?= python3
PYTHONS ?=
MUTANTS ?=
TESTS ?= tests
TIMES ?= 20
AMOUNT ?= whole
PAGES ?= 16

.PHONY: help demo test test-full quick stress kill-full mutants wheel bench bench-costs bench-full clean
.PHONY: test-aarch64 test-aarch64-vm

help:
	@echo "make demo       build, install and show the main job (PYTHON=python3.6 for another interpreter)"
	@echo "make test       format, lints, core, wheel, and the suites on every CPython found"
	@echo "make test-full  the same with every test under every start method on every CPython"
	@echo "                PYTHONS=\"3.6 3.13\" narrows both"
	@echo "make quick      for use while one works: one CPython, no slow tests"
	@echo "make stress     TESTS=\"tests/x/test_y.py\" again and again, beside load (TIMES=20)"
	@echo "make kill-full  the core's processes killed after every single instruction"
	@echo "make docs       the manual, in build/manual/index.html"
	@echo "make sdist      the source distribution, in dist/"
	@echo "make mutants    the core broken on purpose: the tests must notice"
	@echo "make test-aarch64     the core and the quick tests on an emulated 64-bit Arm"
	@echo "make test-aarch64-vm  the core's processes there, on a kernel with pages of 16 KiB (PAGES=\"16 4\")"
	@echo "make wheel      the release wheels, manylinux2014 and musllinux, in dist/"
	@echo "make bench      all scenarios beside their peers; writes the numbers of README and docs, and charts"
	@echo "make bench-costs      what operations cost, in some minutes; writes the numbers of docs/costs.md"
	@echo "make bench-full both with more rounds, Ray and Dask, then each benchmark on every CPython"
	@echo "make clean      remove what all of these made"

demo:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc venv) \
	&& echo "building and installing for $$python" \
	&& python=$$("$$python" dev/environments.py demo "$$python") \
	&& "$$python" -m shared_numpy demo

test test-full quick kill-full wheel bench bench-costs bench-full:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust lint cc objdump venv) \
	&& exec "$$python" -u dev/matrix.py $@ $(PYTHONS)

.PHONY: docs sdist
docs sdist:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc venv) \
	&& exec "$$python" -u dev/matrix.py $@

test-aarch64:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc venv) \
	&& exec "$$python" -u dev/matrix.py $@

test-aarch64-vm:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc venv) \
	&& exec "$$python" -u dev/matrix.py $@ $(PAGES)

stress:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc venv) \
	&& exec "$$python" -u dev/stress.py $(TESTS) --times $(TIMES) --amount $(AMOUNT) $(if $(PYTHONS),--pythons $(PYTHONS))

mutants:
	@python=$$(sh dev/preflight.sh "$(PYTHON)" rust cc) \
	&& exec "$$python" -u dev/mutants.py $(MUTANTS)

clean:
	rm -rf build dist target
