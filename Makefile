# `make` alone lists the commands. Each makes the environment that it needs, once.
.DEFAULT_GOAL := help
.PHONY: help serve site test test-all check test-page repeat record upgrade defaults diagrams lock clean
.SILENT:

SITE := .venv-site/bin/python
FULL := .venv/bin/python
ADDRESS ?= 127.0.0.1:8000
JOBS ?= 2
export NO_MKDOCS_2_WARNING := 1
export PYTHON

help: ## list the commands
	awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

serve: .venv-site/.installed ## build the site and serve it with live reload (ADDRESS=127.0.0.1:8000)
	$(SITE) -m tools.serve $(ADDRESS)

site: .venv-site/.installed ## build the site into site/
	$(SITE) -m mkdocs build --clean

test: .venv/.installed .venv-cluster/.installed ## run all checks, and the programs that are due; the rest has records (JOBS=2 at a time)
	tools/debian.sh chromium
	$(FULL) -m pytest -v --programs due --numprocesses $(JOBS)

test-all: .venv/.installed .venv-cluster/.installed ## run all checks and every program, or one part of several: make test-all SHARD=1/6
	tools/debian.sh chromium
	tools/debian.sh slurm
	$(FULL) -m pytest -v --numprocesses $(JOBS) $(if $(SHARD),--shard $(SHARD))

check: .venv/.installed ## lint, site build, facts, records in step: seconds, no training
	$(FULL) -m ruff check --quiet .
	$(FULL) -m ruff format --check --quiet . || { echo "Some files are not formatted; run: .venv/bin/ruff format ." >&2; exit 1; }
	$(FULL) -m pytest -q -m "not slow" --numprocesses $(JOBS) tests examples

test-page: .venv/.installed .venv-cluster/.installed ## run the programs of one page: make test-page PAGE=docs/algorithms/ppo.md
	test -n "$(PAGE)" || { echo "Name a page: make test-page PAGE=docs/algorithms/ppo.md" >&2; exit 1; }
	test -f "$(PAGE)" || { echo "There is no page $(PAGE); pages stand in docs/." >&2; exit 1; }
	$(FULL) -m pytest -v "$(PAGE)"

repeat: .venv/.installed .venv-cluster/.installed ## run each program of a page many times in a row: make repeat PAGE=docs/scaling/faults.md TIMES=20
	test -f "$(PAGE)" || { echo "Name a page that exists: make repeat PAGE=docs/scaling/faults.md" >&2; exit 1; }
	$(FULL) -m tools.repeat $(PAGE) $(if $(TIMES),--times $(TIMES))

record: .venv/.installed ## run examples over the seeds that they draw and write results/: make record EXAMPLES="algorithms/ppo" (or stale; SEEDS="0 1" only tries out)
	$(FULL) -m tools.record $(EXAMPLES) $(if $(SEEDS),--seeds "$(SEEDS)")

upgrade: .venv/.installed ## try every program with another release of RLlib: make upgrade RAY=2.59.0, or the newest
	$(FULL) -m tools.upgrade $(RAY) --jobs $(JOBS)

defaults: .venv/.installed ## read RLlib's default settings, and try what it supports, into results/rllib_*.json
	$(FULL) -m tools.defaults
	$(FULL) -m tools.support

diagrams: .venv-site/.installed ## draw the pages' new diagrams into diagrams/, remove those that no page shows
	$(SITE) -m tools.diagrams

lock: .venv/.installed ## pin every package after an edit to a requirements .in file
	tools/lock.sh .venv/bin

clean: ## remove the site, the environments and the cache
	rm -rf site .venv .venv-site .venv-cluster .venv-ray-* .venv*.l* .cache

.venv-site/.installed: requirements-site.txt
	tools/environment.sh .venv-site requirements-site.txt

.venv/.installed: requirements.txt
	tools/environment.sh .venv requirements.txt

.venv-cluster/.installed: requirements-cluster.txt .venv/.installed
	tools/environment.sh .venv-cluster requirements-cluster.txt .venv
