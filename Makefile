# Everything runs in .venv, which each target makes or brings up to date first.
PYTHON ?= python3.11
BIN := .venv/bin
# Each test process starts others of its own.
CORES := $(shell n=$$(nproc); echo $$((n > 4 ? 4 : n)))

.PHONY: setup train reproduce-s2q-matrix reproduce-s2q-exploration football omniboard test test-fast test-omniboard lint docs bench clean

setup: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip
	@echo "installing torch, JAX and the rest into .venv: some minutes"
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q --no-build-isolation --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@

# Google Research Football's engine, built from source once: about five minutes on two free cores.
football: .venv/installed
	./install_grf.sh

# S2Q learns to win SMAX's 3m: about seven minutes on two cores. Ends with the win rate, a curve and the record's path.
train: setup
	$(BIN)/python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m t_max=200000 batch_size=32 \
	    updates_per_rollout=4 lr=0.0005 td_lambda=0.3 epsilon_anneal_time=50000 test_interval=25000 test_nepisode=96 seed=1

# Figures 1 and D.1 of the S2Q paper: pictures, a table and a verdict on its claims. Interrupted, they continue.
reproduce-s2q-matrix: setup
	$(BIN)/python -m shoal.reproduce s2q-matrix --seeds 10 --jobs 2 --out results/s2q_matrix

reproduce-s2q-exploration: setup
	$(BIN)/python -m shoal.reproduce s2q-exploration --seeds 3 --jobs 2 --out results/s2q_exploration

# Runs in MongoDB, in the browser: make omniboard SHOAL_MONGO_URL=HOST:PORT:DB PORT=9000. Needs node 18 or newer.
omniboard: omniboard/node_modules/installed
	node omniboard/start.js

omniboard/node_modules/installed: omniboard/package.json
	@echo "installing Omniboard into omniboard/node_modules (550 MB): some minutes"
	npm install --prefix omniboard --no-audit --no-fund --no-package-lock --loglevel=error
	touch $@

test: .venv/installed-dev football
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile

test-fast: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow"

# Omniboard in a browser: 550 MB from npm, and Chromium, which you install (apt-get install chromium).
test-omniboard: .venv/installed-dev omniboard/node_modules/installed
	$(BIN)/python -m pytest tests/test_omniboard.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/site; open index.html there. A link that leads nowhere is an error.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/memory.py

clean:
	rm -rf .venv build src/*.egg-info
