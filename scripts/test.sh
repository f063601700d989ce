#!/usr/bin/env bash
# The whole check, from nothing: engine, base image, tools, lint, build, then the tests.
# Usage: scripts/test.sh [unit | integration | e2e] ...      (default: everything)
#   unit needs neither engine nor images; ARGS="-k name" goes to pytest.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
exec </dev/null # nothing in here may wait for a person

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(lint unit integration e2e)
asked="${suites[*]}"
read -r -a arguments <<<"${ARGS-}"

needs_images=
for suite in "${suites[@]}"; do
  case "$suite" in
    integration | e2e | lint) needs_images=yes ;;
    unit) ;;
    *) die "test.sh does not know '$suite'" "use unit, integration, e2e" ;;
  esac
done

if [ -n "$needs_images" ]; then
  scripts/preflight.sh --problems --no-ports || die "this machine is not ready" "see the lines above"
  scripts/engine.sh || exit
  scripts/preflight.sh --problems --no-ports || die "this machine is not ready" "see the lines above"
fi
scripts/venv.sh || exit
if [ "${suites[0]}" = lint ]; then # cheap and quick: before anything is built
  scripts/lint.sh || exit
  suites=("${suites[@]:1}")
fi
# pytest must not find what the developer's shell says about another stack or another account.
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME AWS_ENDPOINT_URL AWS_PROFILE

# build_images: the base and everything on it.
build_images() { scripts/base-image.sh && scripts/build.sh all; }

# run_tests FOLDER PYTEST-OPTION...: nothing to run is no failure when ARGS chose the tests.
run_tests() {
  local folder=$1 code=0
  shift
  .venv/bin/python -m pytest "tests/$folder" "$@" --durations 10 ${arguments[@]+"${arguments[@]}"} || code=$?
  [ "$code" -ne 5 ] || [ ${#arguments[@]} -eq 0 ] || code=0
  return "$code"
}

# beside NAME COMMAND...: start it in the background; its output goes to .airbridge/log/NAME.log.
beside() {
  local log=$STATE_DIR/log/$1.log
  shift
  mkdir -p "$STATE_DIR/log"
  "$@" >"$log" 2>&1 &
}

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT # a run that ends early leaves nothing behind

# Images are built while the unit tests run, which need none of them.
building=
if [ -n "$needs_images" ]; then
  beside build build_images
  building=$!
fi
await_images() {
  local code=0
  [ -n "$building" ] || return 0
  wait "$building" || code=$?
  building=
  cat "$STATE_DIR/log/build.log"
  return "$code"
}

# Files that share no stack run side by side: as many as there are cores for what computes, more for what
# mostly waits for containers. End-to-end tests share one stack; those with stacks of their own go beside it.
for suite in "${suites[@]}"; do
  [ "$suite" = unit ] || await_images || exit
  say test "$suite"
  case "$suite" in
    unit) run_tests unit -n auto --dist loadfile || exit ;;
    integration) run_tests integration -n 3 --dist loadfile || exit ;;
    e2e)
      code=0
      AIRBRIDGE_E2E_PROJECT=airbridge-own beside e2e-own run_tests e2e -m own_stack --ignore tests/e2e/test_partition.py
      own=$!
      # Six minutes of waiting, which would be added to the others' time.
      AIRBRIDGE_E2E_PROJECT=airbridge-away beside e2e-away run_tests e2e/test_partition.py
      away=$!
      run_tests e2e -m 'not own_stack' || code=$?
      say test "e2e, stacks of their own"
      wait "$own" || code=$?
      cat "$STATE_DIR/log/e2e-own.log"
      wait "$away" || code=$?
      cat "$STATE_DIR/log/e2e-away.log"
      [ "$code" -eq 0 ] || exit "$code"
      ;;
  esac
done
await_images || exit
say test "all passed: $asked"
