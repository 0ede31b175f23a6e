# make demo, make test, make check: each does its own set-up, once, and again only when pyproject.toml has changed.
# PYTHON names the interpreter that the first of them makes .venv with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Tests are spread over the processors, each process with a PostgreSQL server of its own; PROCESSES=0 spreads nothing.
PROCESSES ?= logical
SPREAD := --numprocesses=$(PROCESSES) --maxprocesses=8 --dist=worksteal
# A test that hangs fails, with what its threads were at.
HANGING := --override-ini=faulthandler_timeout=300 --override-ini=faulthandler_exit_on_timeout=true
WHEEL := build/wheel
POOLER := build/pgbouncer
AXE := build/axe

.PHONY: demo test test-all mutants test-wheel check ruff mypy pyright proof bench bench-quick pgbouncer browser test-browser fuzz format clean

demo: $(VENV)/.run
	$(BIN)/steplog demo

test: $(VENV)/.test
	$(PYTEST) $(SPREAD) $(HANGING)

test-all: $(VENV)/.test $(VENV)/.check typings/steplog pgbouncer browser
	HYPOTHESIS_PROFILE=nightly $(PYTEST) $(SPREAD) -m ""

# Each deliberate fault that tests/mutants lists, and the test of the standard suite that catches it.
mutants: $(VENV)/.test
	$(PYTEST) $(SPREAD) -m "" tests/mutants

# `make --jobs=2 check` runs two of them at a time.
check: ruff mypy pyright proof

ruff: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy pyright: $(VENV)/.check typings/steplog
	$(BIN)/$@

# That both checkers read everything. What mypy has read by then it does not read again.
proof: mypy
	$(PYTEST) -m check

# The built wheel in an environment of its own, as a user has it: it runs with what it declares, and passes the quick
# tests of the log. Those borrow pytest from .venv, whose own steplog stays out of sight: PYTHONPATH reads no .pth file.
test-wheel: $(VENV)/.test
	rm -rf $(WHEEL)
	$(BIN)/python tests/wheel.py $(WHEEL)
	$(BIN)/python -m venv $(WHEEL)/venv
	$(WHEEL)/venv/bin/pip install --quiet --disable-pip-version-check $(WHEEL)/*.whl
	$(WHEEL)/venv/bin/steplog --help >$(WHEEL)/help.txt
	$(WHEEL)/venv/bin/python -c 'import steplog.examples.registration as it; assert "site-packages" in it.__file__, it.__file__'
	PYTHONPATH=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		$(WHEEL)/venv/bin/python -m pytest tests/test_event_catalogue.py tests/compliance/test_sqlite_compliance.py

# Ours beside its peers and its limits, on a PostgreSQL of its own; peers go into environments under build/bench.
bench: $(VENV)/.test
	$(BIN)/python benchmarks

bench-quick: $(VENV)/.test
	$(BIN)/python benchmarks --quick

# The pooler that tests are run behind, from Debian, unpacked beside the tree; the machine's own comes first. Where it
# cannot be had those tests skip and say so.
pgbouncer:
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || test -x $(POOLER)/usr/sbin/pgbouncer || { \
		mkdir -p $(POOLER) && cd $(POOLER) && apt-get download --quiet pgbouncer libc-ares2 libevent-2.1-7 \
		&& for package in *.deb; do dpkg -x "$$package" .; done; } || echo "no pgbouncer: its tests will be skipped"

# What tests of the pages look through: Debian's Chromium with its driver, and axe from npm. Where they cannot be had
# those tests skip and say so.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		apt-get install --yes --quiet --quiet chromium chromium-driver >/dev/null 2>&1 || \
		{ apt-get update --quiet --quiet && apt-get install --yes --quiet --quiet chromium chromium-driver >/dev/null; } || \
		echo "no chromium: its tests will be skipped"
	@test -f $(AXE)/package/axe.min.js || { mkdir -p $(AXE) && cd $(AXE) && npm pack --silent axe-core@4 >/dev/null \
		&& tar -xzf axe-core-*.tgz; } || echo "no axe: its tests will be skipped"

# The pages in that browser, every payload in every text too.
test-browser: $(VENV)/.test browser
	$(PYTEST) $(HANGING) -m "" tests/test_dashboard_browser.py

# What the API's description allows and what it does not, sent to a server of its own; schemathesis lives under build/.
FUZZ := build/fuzz
fuzz: $(VENV)/.test
	@test -x $(FUZZ)/bin/schemathesis || { $(PYTHON) -m venv $(FUZZ) && $(FUZZ)/bin/pip install --quiet schemathesis; }
	PYTHONPATH=tests $(BIN)/python tests/fuzz_api.py $(FUZZ)/bin/schemathesis --max-examples $(or $(EXAMPLES),70)

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist typings .mypy_cache .pytest_cache .ruff_cache .hypothesis steplog.egg-info

# A half-made environment would be taken for a finished one by the next run, so a failed one goes.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "steplog needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: pyproject.toml | $(BIN)/pip
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/pip
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.check: pyproject.toml | $(VENV)/.test
	$(PIP) --editable '.[check]'
	@touch $@ $(VENV)/.run

# The type checkers cannot follow the import hook of an editable install; they find the package through this link.
typings/steplog:
	mkdir -p typings
	ln -sfn .. $@
