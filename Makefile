# make run: set up and serve. make test: set up and test. Neither needs root, nor anything but git, make and python3 with
# venv (Python 3.11 or newer). What is set up lies in .venv/, what is built in build/ and dist/.

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint types docs bench fuzz torture build lock clean FORCE
.DELETE_ON_ERROR:

CONFIG ?= config.json
ARGS ?=

python := .venv/bin/python
pip_install := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes
sources := $(shell find mailer -type f -not -name '*.pyc')

help: ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

run: .venv/run.stamp ## set up, copy config.example.json to config.json unless there is one, and serve (CONFIG=… ARGS=…)
	@if [ "$(CONFIG)" = config.json ] && [ ! -e config.json ]; then \
		cp config.example.json config.json && echo "config.json: copied from config.example.json"; fi
	@exec $(python) mailer.py -config "$(CONFIG)" $(ARGS)

test: .venv/dev.stamp ## set up and run the tests (10 minutes at most; make test-all has the rest)
	$(python) -m pytest -m "not slow" $(ARGS)

test-all: .venv/dev.stamp ## run all tests, those over 20 seconds too
	$(python) -m pytest $(ARGS)

lint: .venv/dev.stamp ## check the style of the source
	$(python) -m ruff check .

types: .venv/dev.stamp ## check the types
	$(python) -m mypy
	$(python) -m mypy .ci/smoke.py

docs: .venv/run.stamp ## write docs/configuration.md anew from the schema
	$(python) docs/generate.py

bench: .venv/dev.stamp ## measure every figure beside its peers (needs root, Debian's postfix and linux-perf; ARGS="rate cpu")
	$(python) -m bench $(ARGS)

torture: .venv/dev.stamp dist/mailer ## do everything to dist/mailer that may happen to it, and account for every message (1/2 hour)
	$(python) -m tests.torture $(ARGS)

fuzz: .venv/fuzz.stamp ## feed the parsers with what nobody thought of, 10 minutes each (ARGS="--minutes 1 session")
	$(python) -m tests.fuzz $(ARGS)

build: dist/mailer ## freeze dist/mailer, one executable, with the newest Python at hand (PYTHON=… names another)
	@ls -l dist/mailer
	@dist/mailer --version

lock: ## pin the newest versions that requirements*.in allow, with the hashes of all their public files
	python=$$(deploy/choose-python run) && "$$python" -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check pip-tools==7.6.2
	for name in requirements requirements-dkim requirements-dev requirements-build requirements-fuzz; do \
		env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null \
		CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/python -m piptools compile --quiet --upgrade --generate-hashes \
		--allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--index-url https://pypi.org/simple --output-file $$name.txt $$name.in || exit 1; done

clean: ## remove what was set up and built; configuration, spool and mail stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment whose interpreter has gone (make follows the link) is made anew.
.venv/bin/python:
	@chosen=$$(deploy/choose-python run) && echo "setting up .venv with $$chosen" && "$$chosen" -m venv --clear .venv

.venv/run.stamp: requirements.txt requirements-dkim.txt | .venv/bin/python
	@$(python) $(pip_install) $$(deploy/requirements $(python))
	@touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.txt
	@echo "installing what the tests need"
	@$(python) $(pip_install) -r requirements-dev.txt
	@touch $@

.venv/fuzz.stamp: .venv/dev.stamp requirements-fuzz.txt
	@echo "installing atheris"
	@$(python) $(pip_install) -r requirements-fuzz.txt
	@touch $@

# Changes only when another interpreter is chosen, and only then the environment below is made anew.
build/python.txt: FORCE
	@mkdir -p build && chosen=$$(deploy/choose-python freeze) && \
		{ printf '%s\n' "$$chosen" | cmp -s - $@ || printf '%s\n' "$$chosen" > $@; }

build/venv.stamp: build/python.txt requirements.txt requirements-dkim.txt requirements-build.txt
	@command -v objcopy >/dev/null || { echo "objcopy is missing: sudo apt install binutils" >&2; exit 1; }
	@echo "setting up build/venv with $$(cat build/python.txt)"
	@"$$(cat build/python.txt)" -m venv --clear build/venv
	@build/venv/bin/python $(pip_install) $$(deploy/requirements build/venv/bin/python) -r requirements-build.txt
	@touch $@

dist/mailer: build/venv.stamp build.spec mailer.py $(sources)
	PYINSTALLER_CONFIG_DIR=build/cache PYTHONHASHSEED=1 build/venv/bin/python -m PyInstaller --noconfirm --log-level WARN \
		--distpath dist --workpath build/work build.spec
