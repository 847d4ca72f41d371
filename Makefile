# One command each; every target makes what it needs. `make PYTHON=/path/to/python3` names another
# Python than the first one found; with VENV=.venv-other it gets an environment of its own.
.PHONY: demo ui test test-docs test-lowest test-integrations test-verl test-verl-gpu test-servers test-old-servers faults campaign lint types docs bench bench-gate setup clean
.NOTPARALLEL:  # two installations into one environment disturb each other

VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
UNFINISHED := $(VENV)/.unfinished
export MLFLOW_DISABLE_TELEMETRY ?= true
# Each of these would send pip or the interpreter elsewhere than into $(VENV).
unexport PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER VIRTUAL_ENV

# The versions of constraints.txt first. A name on the PATH may be too old, a stub, or, as Debian
# splits it, a Python without venv.
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -E -c '$(USABLE)' >/dev/null 2>&1 && echo $$p && break; done)

demo: $(VENV)/.demo
	@$(BIN)/orbiter-mlflow demo

# The example's runs in the MLflow UI: replayed from their journals into a store of their own, the
# first config's runs blessed as the baseline of its gate.toml.
EXAMPLE := .example
EXAMPLE_URI := sqlite:///$(EXAMPLE)/mlflow.db
PORT := 5000
ui: $(VENV)/.demo
	@test -e $(EXAMPLE)/mlflow.db || { rm -rf $(EXAMPLE) && cp -R mlruns.example/journals $(EXAMPLE); }
	@$(BIN)/orbiter-mlflow sync $(EXAMPLE) --ended --tracking-uri $(EXAMPLE_URI)
	@$(BIN)/orbiter-mlflow bless lr-0.5-seed-0 lr-0.5-seed-1 lr-0.5-seed-2 \
		--reason "the best of three configs" --tracking-uri $(EXAMPLE_URI) --experiment example
	@$(BIN)/orbiter-mlflow ui --tracking-uri $(EXAMPLE_URI) --experiment example \
		--address http://127.0.0.1:$(PORT)
	@echo; echo "The server starts, which takes some seconds; Ctrl-C ends it"
	@PYTHONWARNINGS=ignore MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server \
		--backend-store-uri $(EXAMPLE_URI) --host 127.0.0.1 --port $(PORT) --workers 1

# The tests, or those in the folders that TESTS names.
TESTS :=
test: $(VENV)/.dev
	$(BIN)/python -m pytest --ignore-glob='*/test_faults_*' $(TESTS)

# With the lowest versions that pyproject.toml admits, in an environment of their own. The oldest
# Python: later ones have no wheels of these versions.
OLDEST_PYTHON ?= $(shell for p in python3.11 python3.12 $(PYTHON); do \
	$$p -E -c '$(USABLE)' >/dev/null 2>&1 && echo $$p && break; done)
test-lowest:
	@$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt PYTHON=$(OLDEST_PYTHON) test test-docs

# The configs of the large libraries, what they log to MLflow, and trainings by TRL, in an environment
# of their own. verl comes without what it needs: only its config files are read. torch has no wheel
# for each new Python at once.
INTEGRATIONS := .venv-integrations
test-integrations: $(INTEGRATIONS)/.done
	$(INTEGRATIONS)/bin/python -m pytest -n 0 tests/config/check_integrations.py
	$(INTEGRATIONS)/bin/python -m pytest -n 0 tests/train/check_huggingface.py tests/train/check_trl.py
	$(INTEGRATIONS)/bin/python -m pytest --dist loadgroup tests/clients/check_clients.py \
		tests/docs/check_integrations_pages.py

$(INTEGRATIONS)/.done: pyproject.toml constraints.txt
	@echo "Installing into $(INTEGRATIONS); the first time this takes some minutes"
	@rm -rf $(INTEGRATIONS)
	@$(OLDEST_PYTHON) -m venv $(INTEGRATIONS)
	@$(INTEGRATIONS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c constraints.txt -e '.[integrations]'
	@$(INTEGRATIONS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		--no-deps 'verl>=0.9,<0.10'
	@touch $@

# verl itself, in an environment of its own: it needs other versions than the integrations. Its
# supervised fine-tuning runs on the CPU.
VERL := .venv-verl
TEST_TOOLS := pytest pytest-asyncio pytest-randomly pytest-xdist
test-verl: $(VERL)/.done
	$(VERL)/bin/python -m pytest --durations 5 tests/train/check_verl.py

$(VERL)/.done: pyproject.toml constraints-verl.txt
	@echo "Installing into $(VERL); the first time this takes some minutes"
	@rm -rf $(VERL)
	@$(OLDEST_PYTHON) -m venv $(VERL)
	@$(VERL)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
		-c constraints-verl.txt -e '.[verl]' torch $(TEST_TOOLS)
	@touch $@

# verl's GRPO, on a machine with a GPU: make test-verl-gpu MODEL=name-or-path. verl's own extra has
# vLLM and the versions that it was made for.
MODEL := Qwen/Qwen2.5-0.5B-Instruct
VERL_GPU := .venv-verl-gpu
test-verl-gpu: $(VERL_GPU)/.done
	ORBITER_VERL_MODEL=$(MODEL) $(VERL_GPU)/bin/python -m pytest -n 0 tests/train/check_verl_gpu.py

$(VERL_GPU)/.done: pyproject.toml
	@echo "Installing into $(VERL_GPU); the first time this takes many minutes"
	@rm -rf $(VERL_GPU)
	@$(OLDEST_PYTHON) -m venv $(VERL_GPU)
	@$(VERL_GPU)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		-e . 'verl[vllm]>=0.9,<0.10' $(TEST_TOOLS)
	@touch $@

# Servers as people run them: PostgreSQL, S3, passwords. PostgreSQL comes from Debian's package; where
# it is missing, its tests skip themselves and say so.
SERVERS := .venv-servers
test-servers: $(SERVERS)/.done
	$(SERVERS)/bin/python -m pytest -rs --durations 5 $(TEST_SERVERS)
TEST_SERVERS := $(filter-out %/check_old_servers.py,$(wildcard tests/servers/check_*.py))

$(SERVERS)/.done: pyproject.toml constraints.txt
	@echo "Installing into $(SERVERS); the first time this takes some minutes"
	@rm -rf $(SERVERS)
	@$(OLDEST_PYTHON) -m venv $(SERVERS)
	@$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c constraints.txt -e '.[servers]'
	@touch $@

# Runs on real servers that are older than the client, each in an environment of its own.
OLD_SERVERS := 2.9.2 2.14.3 2.16.2
test-old-servers: $(VENV)/.dev $(OLD_SERVERS:%=.old-%/.done)
	$(BIN)/python -m pytest tests/servers/check_old_servers.py

# These MLflow versions were made for older versions of what they need.
.old-%/.done:
	@echo "Installing MLflow $* into .old-$*"
	@rm -rf .old-$*
	@$(OLDEST_PYTHON) -m venv .old-$*
	@.old-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
		'mlflow==$*' 'setuptools<81' 'sqlalchemy<2.1'
	@touch $@

# What a reader runs: the code of the README and the pages, the examples, the demo, and the UI in a
# browser.
test-docs: $(VENV)/.dev
	$(BIN)/python -m pytest $(TEST_DOCS)
TEST_DOCS := $(filter-out %/check_integrations_pages.py,$(wildcard tests/docs/check_*.py tests/cli/check_*.py))

# Those that kill, cut lines and fill disks.
faults: $(VENV)/.dev
	$(BIN)/python -m pytest tests/*/test_faults_*.py

# Random faults, any number of trials: make campaign N=200 SEED=1. PROGRAM=script: a plain MLflow
# script behind journal+; PROGRAM=plain: the same without the prefix.
campaign: $(VENV)/.dev
	$(BIN)/python tests/support/campaign.py --trials $(or $(N),40) --seed $(or $(SEED),0) \
		--program $(or $(PROGRAM),trainer)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# Into `site/`; a link that leads nowhere, or a docstring that names no argument, fails. Part of the
# developer's environment: one of its own would need mlflow a second time.
docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html, or serve it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks

# The error rates of the gate's tests alone, held against the figures in the documentation.
bench-gate: $(VENV)/.dev
	@$(BIN)/python -m benchmarks --only power

setup: $(VENV)/.dev

# $(UNFINISHED) outlives an installation that was killed, as one that pip gave up does not: pip takes
# a package for installed that a kill left without half of its files, so all is made anew.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml $(CONSTRAINTS)
	@if test -e $(UNFINISHED); then rm -rf $(VENV); fi
	@if ! test -x $(BIN)/python; then \
		$(or $(PYTHON),false) -E -c '$(USABLE)' 2>/dev/null || { \
			echo "Python 3.11 or newer with its venv module is needed$(if $(PYTHON),: $(PYTHON) is not that)." \
				"Install it (Debian, Ubuntu: apt install python3-venv)," \
				"or name it: make PYTHON=/path/to/python3" >&2; \
			exit 1; }; \
		mkdir -p $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV); \
	fi
	@echo "Installing into $(VENV); the first time this takes a minute or two"
	@touch $(UNFINISHED)
	@trap 'exit 130' HUP INT TERM; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
		-c $(CONSTRAINTS) -e '.[$*]' || { code=$$?; test $$code -gt 128 || rm $(UNFINISHED); exit $$code; }
	@rm $(UNFINISHED)
	@touch $@ $(if $(filter dev,$*),$(VENV)/.demo)

clean:
	rm -rf $(VENV) .venv-* .old-* $(EXAMPLE) site .mypy_cache .ruff_cache .pytest_cache .hypothesis
