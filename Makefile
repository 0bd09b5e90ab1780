# `make demo` and `make test` need Python 3.11 or newer and make; everything else is installed into .venv, pinned.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
# Without bytecode on disk every start of a command compiles all that it imports, for seconds.
unexport PYTHONDONTWRITEBYTECODE

MEASURES := latency memory recovery disk parts plan

.PHONY: help system install dev demo test lint types audit fast unbuilt pythons sanitize mutations fuzz bench bench-peers bench-query growth $(MEASURES) faults faults-long hostile vendors wheel clean
help:
	@echo 'make demo    the whole way, on this machine: broker, worker, simulated traffic, records, comparison'
	@echo 'make test    every test, against a real Kafka and the embedded ClickHouse'
	@echo 'make system  installs what some tests need: Chromium, promtool, clang (Debian, as root)'
	@echo 'make lint    ruff;  make types    mypy --strict;  make audit    known vulnerabilities of what is pinned'
	@echo 'make fast    the suites of decoding, core and batches;  make unbuilt, make pythons: without the C, by other Pythons'
	@echo 'make sanitize, make fuzz SECONDS=60, make mutations: the C under sanitizers, fuzzed, broken on purpose'
	@echo 'make bench   events per second beside the raw limit and beside Flink, Kafka Streams, ClickHouse alone, plain Faust'
	@echo 'make growth  throughput against what grows (SERIES="open late" for some);  make $(MEASURES)'
	@echo 'make faults  ten minutes of kills and outages against real processes (faults-long: an hour)'
	@echo 'make hostile ten minutes of hostile input and requests against mdr up'
	@echo 'make vendors the vendors'"'"' own clients against our API;  make bench-query: the query side;  make wheel'

$(VENV)/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	@touch $@

$(VENV)/runtime: $(VENV)/python requirements.lock requirements-build.lock pyproject.toml hatch_build.py $(wildcard native/*)
	$(UV) --require-hashes -r requirements.lock
	# Compiled once here, so that every start is a quick one.
	$(UV) --no-deps --build-constraints requirements-build.lock -e .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib schemas streams api
	@$(BIN)/python -c 'import sys; from schemas import native; native.missing and print("WARNING:", native.missing, file=sys.stderr)'
	@touch $@

$(VENV)/dev: $(VENV)/runtime requirements-dev.lock
	$(UV) --require-hashes -r requirements-dev.lock
	@touch $@

# Programs that some tests run: a browser, promtool, clang with its sanitizers. Debian's packages, for root; CI needs them.
SYSTEM := chromium:chromium promtool:prometheus clang:clang clang-format:clang-format
system:
	@missing=; for each in $(SYSTEM); do command -v $${each%%:*} >/dev/null || missing="$$missing $${each##*:}"; done; \
	[ -z "$$missing" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends $$missing libclang-rt-14-dev >/dev/null; }

install: $(VENV)/runtime
dev: $(VENV)/dev

demo: install
	@$(BIN)/mdr demo

test: dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The suites of decoding, core and batches: both ways, without the compiled part, and by every other Python that is found.
FAST := $(patsubst %,tests/test_%.py,bounds events examples text times money numbers regions states join settle flow barrier \
	worker recent packing folding native native_format keyed trim fetched record_batches)
fast: dev
	$(BIN)/pytest -q -n 2 $(FAST)

unbuilt: dev
	$(BIN)/pytest -q -n 2 --without-native $(FAST)

pythons: dev
	@own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in 3.11 3.12 3.13 3.14; do [ $$version != $$own ] || continue; \
		for python in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version*/bin/python$$version; do \
			$$python -c '' 2>/dev/null || continue; \
			echo "by Python $$version"; $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$python fast || exit 1; break; \
		done; done

# The C under the address and undefined behaviour sanitizers; what breaks it unseen; what coverage leads to.
sanitize: dev
	$(BIN)/python -m tests.sanitize

mutations: dev
	$(BIN)/python -m tests.mutations

SECONDS ?= 60
fuzz: dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

audit: dev
	$(BIN)/python .ci/audit.py

lint: dev
	$(BIN)/ruff check .

types: dev
	$(BIN)/mypy

bench: dev bench-peers
	$(BIN)/python -m benchmarks.bench

# Only the bench needs mvn and a JDK; without them it goes on without Flink and Kafka Streams.
bench-peers:
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then $(MAKE) --no-print-directory data/peers/built; \
	else echo 'no mvn and javac: Flink and Kafka Streams are left out' >&2; fi

data/peers/built: $(shell find benchmarks/peers/java -type f)
	@rm -rf data/peers
	@mvn --quiet --batch-mode -f benchmarks/peers/java/pom.xml package -Dhome=$(CURDIR)/data/peers
	@touch $@

faults: dev
	$(BIN)/python -m tests.faults --seconds 540

faults-long: dev
	$(BIN)/python -m tests.faults --seconds 3600

# The long run is ten minutes; FLAGS="--seconds 240" for a shorter one.
hostile: dev
	$(BIN)/python -m tests.hostile $(FLAGS)

vendors: dev
	$(BIN)/python -m tests.vendors.run

bench-query: dev
	$(BIN)/python -m benchmarks.query

growth: dev
	$(BIN)/python -m benchmarks.growth $(SERIES)

$(MEASURES): dev
	$(BIN)/python -m benchmarks.$@

wheel: dev
	$(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf .venv .venv-* data dist
