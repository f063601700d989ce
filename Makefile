# Each target is one step in scripts/, so that the same step runs by hand, here and in CI.

# `make` alone explains itself and changes nothing.
.DEFAULT_GOAL := help
# Recipes are one script call each; bash, because that is what the scripts are written in.
SHELL := /usr/bin/env bash
# A target's steps depend on each other and print as they go: never interleave two of them.
.NOTPARALLEL:

# Name of an edge host on this machine. `make up` starts "local"; `make edge` needs another one.
NAME ?=
# Queues that `make edge` lets the host serve, separated by commas. Empty: what it had before, else "default".
QUEUES ?=
# Tasks that the host runs at once. Empty: what it had before, else the image's own number.
CONCURRENCY ?=
# What tasks of `make enroll` and `make edge` may use of Airflow's connections and variables, separated by
# commas; * is all of them. Empty: what it had before, else none.
CONNECTIONS ?=
VARIABLES ?=
# Packages that `make publisher` lets a team write, separated by commas; * is all of them.
PACKAGES ?=
# `make enroll`: the enrolment ends after this long, such as 90d. Empty: never.
EXPIRES ?=
# FORCE=1 lets `make destroy` delete without asking, for scripts.
FORCE ?=
# Seconds that a service may take to end before it is killed; empty: what the compose files say.
TIMEOUT ?=
# Services that `make logs` shows. Empty: all of them. FOLLOW=1 goes on, TAIL=n sets the lines a service.
SERVICE ?=
FOLLOW ?=
TAIL ?=
# Arguments for pytest or the benchmarks, such as ARGS="-k gateway".
ARGS ?=
# What `make bench` measures. Empty: everything.
ONLY ?=
# V=1 shows the output of builds and starts; it always goes to .airbridge/log.
V ?=
export NAME QUEUES CONCURRENCY CONNECTIONS VARIABLES PACKAGES EXPIRES FORCE TIMEOUT SERVICE FOLLOW TAIL ARGS ONLY V

# The base of every image. Its default is in the Dockerfiles; where no registry serves it, it is
# bootstrapped from Debian's packages. Exported only when set, so that .env keeps its say.
ifdef BASE_IMAGE
export BASE_IMAGE
endif

##@ Run
.PHONY: up down destroy status logs trace password
up: ## From a fresh clone to a task that ran on an edge host; safe to repeat
	@scripts/up.sh
down: ## Stop the control plane and the edge hosts on this machine; all data stays; [TIMEOUT=s]
	@scripts/down.sh
destroy: ## Stop everything and delete all data; asks first, or FORCE=1
	@scripts/down.sh --destroy
status: ## What runs, and how it is
	@scripts/status.sh
logs: ## Logs; SERVICE="scheduler gateway", NAME=local, TAIL=200, FOLLOW=1
	@scripts/logs.sh
trace: ## The whole way of an attempt at a task, through all logs; ID=... or TASK=DAG/RUN/TASK [JSON=1]
	@scripts/trace.sh
password: ## Print the admin password of the web UI, and nothing else
	@scripts/password.sh

##@ Edge hosts
.PHONY: edge enroll workers rotate revoke join-token diag cache
edge: ## Another edge host on this machine; NAME=berlin [QUEUES=default,gpu] [CONCURRENCY=4]
	@scripts/edge-up.sh "$$NAME" "$$QUEUES" "$$CONCURRENCY"
enroll: ## A bundle for an edge host on another machine; NAME=plant-7 [QUEUES=default] [CONCURRENCY=8] [EXPIRES=90d]
	@scripts/enroll.sh "$$NAME" "$$QUEUES" "$$CONCURRENCY"
workers: ## Who is enrolled; [JSON=1]
	@scripts/identity.sh list
rotate: ## A new credential for an edge host, on stdout; the old one stays good for an hour; NAME=plant-7
	@scripts/identity.sh rotate "$$NAME"
revoke: ## Nothing that an edge host holds opens anything, within a second; NAME=plant-7
	@scripts/identity.sh revoke "$$NAME"
join-token: ## Another join token for an edge host, on stdout; NAME=plant-7
	@scripts/identity.sh join-token "$$NAME"
diag: ## Check every part of an edge host's connection; [NAME=local] [JSON=1]
	@scripts/diag.sh "$$NAME"
cache: ## How large the cache of an edge host is; DAYS=7 removes what was unused for so long, CLEAR=1 all; [NAME=local]
	@scripts/cache.sh "$$NAME"

##@ Publishers
.PHONY: publisher publishers publisher-rotate publisher-revoke
publisher: ## A credential to publish packages with; NAME=team-a PACKAGES=orders,reporting [EXPIRES=90d]
	@scripts/publisher.sh enroll "$$NAME" "$$PACKAGES"
publishers: ## Who may publish what; [JSON=1]
	@scripts/publisher.sh list
publisher-rotate: ## A new credential for a publisher; the old one stays good for an hour; NAME=team-a
	@scripts/publisher.sh rotate "$$NAME"
publisher-revoke: ## Nothing that a publisher holds opens anything, within a second; NAME=team-a
	@scripts/publisher.sh revoke "$$NAME"

##@ Build
.PHONY: build build-control-plane build-edge-worker lock
build: engine base-image ## Build all images
	@scripts/build.sh all
build-control-plane: engine base-image ## Build the images of the control plane
	@scripts/build.sh control-plane
build-edge-worker: engine base-image ## Build the images of an edge host
	@scripts/build.sh edge-worker
lock: ## Compile requirements/*.txt from pyproject.toml, with hashes
	@scripts/lock.sh

##@ Check
.PHONY: test test-unit test-integration test-e2e lint format bench
test: ## Everything: lint, build, unit, integration and end-to-end tests
	@scripts/test.sh
test-unit: ## Unit tests: seconds, no Docker; ARGS="-k name"
	@scripts/test.sh unit
test-integration: ## Tests against the real LocalStack and Postgres images
	@scripts/test.sh integration
test-e2e: ## Tests of whole stacks, under projects and ports of their own
	@scripts/test.sh e2e
lint: venv ## ruff, mypy, shellcheck, hadolint, docker compose config
	@scripts/lint.sh
format: venv ## Lay out the Python code as lint wants it
	@.venv/bin/ruff check --quiet --fix-only . && .venv/bin/ruff format .
bench: venv ## Measure, results to bench/results/; [ONLY="cold idle visible releases scale identity fleet dispatch"] [ARGS="--quick --keep"]
	@scripts/bench.sh

##@ Single steps
.PHONY: preflight engine base-image venv help
preflight: ## Look at this machine, change nothing: engine, versions, ports, memory, disk
	@scripts/preflight.sh
engine: ## Make sure that a Docker engine answers (installs one on Debian as root)
	@scripts/engine.sh
base-image: ## Make sure that the images' base is there (bootstraps it where no registry answers)
	@scripts/base-image.sh
venv: ## Make .venv with the Python tools
	@scripts/venv.sh
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
