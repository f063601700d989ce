"""From raw samples to the numbers that are shown."""

from __future__ import annotations

import itertools

import pytest
from bench._cold import GREEN, Step, read_steps, seconds_to
from bench._facts import is_quiet
from bench._idle import Sample, read_sample
from bench._results import Target
from bench._shell import Shell, neutral_environment
from bench._stats import percentile, summary
from hypothesis import given
from hypothesis import strategies as st

from airbridge.errors import AirbridgeError

_MIB = 1024 * 1024
_FLOATS = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=60)


def test_percentile_lies_between_the_two_nearest_samples():
    assert percentile([float(n) for n in range(1, 22)], 95) == pytest.approx(20.0)
    assert percentile([1.0, 2.0], 50) == pytest.approx(1.5)
    assert percentile([7.0], 95) == 7.0


@given(_FLOATS)
def test_percentile_never_leaves_the_samples_and_never_falls(samples):
    values = [percentile(samples, percent) for percent in (1, 50, 95, 99)]
    assert min(samples) <= values[0] + 1e-6
    assert values[-1] <= max(samples) + 1e-6
    assert all(before <= after + 1e-6 for before, after in itertools.pairwise(values))


@pytest.mark.parametrize(("samples", "percent"), [([], 95), ([1.0], 0), ([1.0], 100)])
def test_percentile_of_nothing_is_refused(samples, percent):
    with pytest.raises(ValueError, match="percentile"):
        percentile(samples, percent)


def test_summary_counts_and_rounds():
    assert summary([1.23456, 3.0, 2.0]) == {
        "count": 3,
        "min": 1.235,
        "median": 2.0,
        "p95": 2.9,
        "max": 3.0,
    }


@pytest.mark.parametrize(
    "details",
    [
        {"total_inactive_file": 40 * _MIB, "inactive_file": 1},
        {"inactive_file": 40 * _MIB, "anon": 5},
    ],
    ids=["control groups 1", "control groups 2"],
)
def test_idle_memory_leaves_out_the_inactive_page_cache(details):
    stats = {
        "memory_stats": {"usage": 100 * _MIB, "stats": details},
        "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
    }
    assert read_sample(stats) == Sample(memory_mib=60.0, cpu_s=1.5)


_MAKE_UP = [
    (0.1, "[   0 s] preflight     this machine is ready\n"),
    (40.0, "#12 [internal] load build context\n"),
    (61.5, "[  61 s] control-plane healthy\n"),
    (75.0, "[  75 s] sample run    edge_sample_dag succeeded in 5.1 s on local\n"),
    (76.0, "  admin password (shown this once; make password prints it again): secret\n"),
]


def test_steps_of_make_up_are_read_with_the_time_they_came():
    steps = read_steps(_MAKE_UP)
    assert [step.name for step in steps] == ["preflight", "control-plane", "sample run"]
    assert steps[1] == Step("control-plane", "healthy", 61.5)
    assert seconds_to(steps, GREEN) == 75.0


def test_start_without_a_green_task_is_an_error_and_no_number():
    with pytest.raises(AirbridgeError, match="sample run"):
        seconds_to(read_steps(_MAKE_UP[:3]), GREEN)


def test_step_is_read_as_the_scripts_print_it():
    """The format is the scripts' own: ask them."""
    line = Shell().run("bash", "-c", '. scripts/lib.sh; say "sample run" "it worked"')
    (step,) = read_steps([(3.0, line)])
    assert (step.name, step.text) == (GREEN, "it worked")


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("a", 10, 10.0, "s"), True),
        (Target("a", 10, 10.1, "s"), False),
        (Target("a", 10, 9.0, "s", "at least"), False),
        (Target("a", 10, 11.0, "s", "at least"), True),
    ],
)
def test_target_says_whether_it_was_met(target, met):
    assert target.met is met
    assert ("MISSED" in str(target)) is not met


def test_load_above_one_a_core_is_no_quiet_machine():
    assert is_quiet({"cores": 2, "load_average": [2.0, 9.0, 9.0]})
    assert not is_quiet({"cores": 2, "load_average": [2.1, 0.0, 0.0]})


def test_settings_of_another_stack_stay_out_of_the_measured_one():
    given_environment = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "SSL_CERT_FILE": "/ca.pem",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AIRBRIDGE_VERSION": "0.2.0",
        "VIRTUAL": "kept: only whole names are ours",
        "AIRBRIDGE_UI_PORT": "8080",
        "COMPOSE_PROJECT_NAME": "airbridge",
        "WORKER_NAME": "berlin",
        "ENVIRONMENT": "prod",
        "MAKEFLAGS": "--jobserver",
        "V": "1",
        "NAME": "berlin",
    }
    assert set(neutral_environment(given_environment)) == {
        "PATH",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "AWS_CA_BUNDLE",
        "AIRBRIDGE_VERSION",
        "VIRTUAL",
    }


def test_failed_program_is_an_error_that_shows_its_last_words():
    with pytest.raises(AirbridgeError, match=r"ended with 3: .*no way"):
        Shell().run("bash", "-c", "echo no way >&2; exit 3")
    assert Shell().run("bash", "-c", "echo out; exit 3", check=False) == "out\n"
    assert Shell(prefix=("env", "WORD=prefixed")).run("bash", "-c", "echo $WORD") == "prefixed\n"
