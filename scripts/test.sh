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
if [ -n "$needs_images" ]; then
  scripts/base-image.sh || exit
  scripts/build.sh all || exit
fi

# pytest must not find what the developer's shell says about another stack or another account.
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME AWS_ENDPOINT_URL AWS_PROFILE
for suite in "${suites[@]}"; do
  [ -d "tests/$suite" ] || continue
  # Files side by side, where they do not share a stack: as many as there are cores for what computes, more
  # for what waits for containers. ARGS="-n 0" runs one after the other.
  case "$suite" in
    unit) at_once=(-n auto --dist loadfile) ;;
    integration) at_once=(-n 3 --dist loadfile) ;;
    *) at_once=() ;;
  esac
  say test "$suite"
  .venv/bin/python -m pytest "tests/$suite" ${at_once[@]+"${at_once[@]}"} --durations 10 ${arguments[@]+"${arguments[@]}"} || exit
done
say test "all passed: $asked"
