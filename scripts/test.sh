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
# run_tests FOLDER PYTEST-OPTION...
run_tests() {
  local folder=$1
  shift
  say test "$folder"
  .venv/bin/python -m pytest "tests/$folder" "$@" --durations 10 ${arguments[@]+"${arguments[@]}"}
}

# Files that share no stack run side by side: as many as there are cores for what computes, more for what
# mostly waits for containers. What measures the memory of a server wants the machine for itself.
for suite in "${suites[@]}"; do
  case "$suite" in
    unit) run_tests unit -n auto --dist loadfile || exit ;;
    integration)
      run_tests integration/localstack || exit
      run_tests integration --ignore tests/integration/localstack -n 3 --dist loadfile || exit
      ;;
    *) run_tests "$suite" || exit ;;
  esac
done
say test "all passed: $asked"
