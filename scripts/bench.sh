#!/usr/bin/env bash
# Runs the benchmarks with their peers and writes the results as data below bench/results/.
# Usage: scripts/bench.sh
# ONLY  what to measure: any of cold idle visible releases scale identity fleet dispatch (default: all of them)
# ARGS  options of `python -m bench run`, such as ARGS=--quick
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

scripts/engine.sh || exit
scripts/base-image.sh || exit
scripts/build.sh stack || exit
read -r -a what <<<"${ONLY-}"
read -r -a options <<<"${ARGS-}"
exec .venv/bin/python -m bench run ${options[@]+"${options[@]}"} ${what[@]+"${what[@]}"}
