"""Every option takes what the documentation says; anything else is told with file, line and what is right."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airbridge.jobs import Job
from airbridge.jobs.options import OPTION_NAMES, JobOptions, check_options

if TYPE_CHECKING:
    from job_packages import Packages

MINUTES = timedelta(minutes=1)

RIGHT: dict[str, list[tuple[Any, Any]]] = {
    "timezone": [("Europe/Berlin", "Europe/Berlin"), ("UTC", "UTC")],
    "start_date": [("2026-01-31", datetime(2026, 1, 31)), ("2026-01-31T05:30", datetime(2026, 1, 31, 5, 30))],
    "end_date": [("2026-01-31", datetime(2026, 1, 31)), (None, None)],
    "catchup": [(False, False)],
    "depends_on": [(["other"], ("other",)), (["sales.other", "a.b"], ("sales.other", "a.b")), ([], ())],
    "args": [(["--day", "{{ ds }}"], ("--day", "{{ ds }}")), ((), ()), ([""], ("",))],
    "params": [({"day": "x", "n": [1, {"a": None}]}, {"day": "x", "n": [1, {"a": None}]}), ({}, {})],
    "retries": [(0, 0), (100, 100)],
    "retry_delay": [(90, 90 * timedelta(seconds=1)), ("2h", 120 * MINUTES), (0.5, timedelta(seconds=0.5))],
    "retry_exponential_backoff": [(True, True)],
    "execution_timeout": [("15m", 15 * MINUTES), ("1d", timedelta(days=1)), (None, None)],
    "dagrun_timeout": [("90s", 1.5 * MINUTES)],
    "queue": [("gpu-2", "gpu-2"), (None, None)],
    "pool": [("small.pool", "small.pool")],
    "pool_slots": [(1, 1), (1000, 1000)],
    "priority_weight": [(1, 1), (1_000_000, 1_000_000)],
    "max_active_runs": [(1, 1), (None, None)],
    "cpu": [(0.5, "0.5"), (2, "2"), ("500m", "500m")],
    "memory": [("512Mi", "512Mi"), ("2Gi", "2Gi"), ("64Ki", "64Ki")],
    "group": [("daily orders", "daily orders")],
    "tags": [(["a", "b"], ("a", "b")), ([], ())],
    "owner": [("Käthe", "Käthe")],
}

WRONG: dict[str, list[Any]] = {
    "schedule": [
        "every day", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "@midnight", "@Daily", "", 5, True,
        [], ["@daily", "@daily"], ["@daily", 5], {"every": "0s"}, {"every": "15m", "x": 1}, {"assets": []},
        {"assets": [5]}, {"assets": ["airflow://x"]}, {"any_asset": "x"}, {"timetable": "NoModule"},
        {"timetable": "os; import x.Y"}, {"timetable": "os.system", "args": ["x"]},
        {"timetable": "airflow.timetables.trigger.coerce_datetime"},
        {"timetable": "airflow.configuration.Conf"}, {"timetable": "airflow.timetables.x.Some", "args": 5},
        {"timetable": "airflow.timetables.x.Some", "kwargs": {"x y": 1}},
        {"timetable": "airflow.timetables.x.Some", "kwargs": {"x": (1, 2)}}, {},
    ],
    "timezone": ["Berlin", "../etc/passwd", "", None, 1],
    "start_date": ["yesterday", "2026-02-30", "2026-01-31T05:00+01:00", 20260131, ""],
    "end_date": ["2026-13-01", True],
    "catchup": [1, "yes", None],
    "depends_on": ["other", ["Other"], ["a.b.c"], ["a", "a"], [5], None, ["../x"]],
    "args": ["--day", [5], [None], ["\0"], ["\ud800"], [str(n) for n in range(101)]],
    "params": [[], {"args": []}, {"no name": 1}, {"x": float("inf")}, {"x": "\0"}, {5: 1}, None],
    "retries": ["3", 3.0, True, -1, 101, None],
    "retry_delay": ["5 minutes", "5", "0m", 0, -5, True, None, "999999999d", "400d"],
    "retry_exponential_backoff": [2.0, "true"],
    "max_retry_delay": ["x", 0],
    "execution_timeout": ["1h30m", 0, [5]],
    "dagrun_timeout": ["", {}],
    "queue": ["", "a b", "-x", "x" * 129, 5],
    "pool": ["", "a b", 'x"', 5],
    "pool_slots": [0, 1001, "2"],
    "priority_weight": [0, 1.5],
    "max_active_runs": [0, 1001],
    "cpu": [0, -1, True, "0.5", "1 core", 2000],
    "memory": ["512", "512MB", "0Mi", 512, "1Ti"],
    "on_failure": [
        {}, "slack", {"slack": None}, {"slack": ""}, {"slack": "a b"}, {"email": []}, {"email": ["nobody"]},
        {"email": "a@example.org"}, {"webhook": {"endpoint": "/x"}},
        {"webhook": {"connection": "x", "endpoint": "a b"}},
        {"email": {"to": ["a@example.org"], "connection": 5}}, [],
    ],
    "group": ["", "a\nb", 5],
    "tags": ["a", [""], ["a", "a"], ["x" * 101], [5], [str(n) for n in range(31)]],
    "owner": ["", "\x07", 5],
}  # fmt: skip


def test_every_option_is_tried_with_right_and_with_wrong_values() -> None:
    tried_elsewhere = {"schedule", "max_retry_delay", "on_failure"}  # below, each in tests of its own
    assert set(RIGHT) | tried_elsewhere == set(OPTION_NAMES)
    assert set(WRONG) == set(OPTION_NAMES)


def test_the_typed_form_has_the_options_of_the_schema_in_order_with_their_defaults() -> None:
    fields = dataclasses.fields(Job)
    assert [field.name for field in fields] == ["entrypoint", "description", *OPTION_NAMES]
    written = {
        field.name: field.default for field in fields[2:] if field.default not in (None, dataclasses.MISSING)
    }
    assert check_options(written) == JobOptions()


@pytest.mark.parametrize(
    ("option", "given", "read"),
    [(option, given, read) for option, cases in RIGHT.items() for given, read in cases],
)
def test_right_value_is_taken(option: str, given: Any, read: Any) -> None:
    checked = check_options({option: given})
    assert isinstance(checked, JobOptions), checked
    assert getattr(checked, option) == read


@pytest.mark.parametrize(
    ("option", "given"), [(option, given) for option, cases in WRONG.items() for given in cases]
)
def test_wrong_value_names_the_option_and_what_is_right(option: str, given: Any) -> None:
    faults = check_options({option: given})
    assert isinstance(faults, list), faults
    assert {fault.option for fault in faults} == {option}
    for fault in faults:
        assert option in fault.what
        title = JobOptions.model_fields[option].title
        assert title is not None
        assert title in fault.fix or "it takes" in fault.fix
        assert str(fault.what).isprintable()


@pytest.mark.parametrize(
    ("schedule", "parts"),
    [
        ("0 5 * * 1-5", {"expressions": ("0 5 * * 1-5",)}),
        ("  */5   * * * *", {"expressions": ("*/5 * * * *",)}),
        ("0 12 * * MON", {"expressions": ("0 12 * * MON",)}),
        ("@daily", {"expressions": ("@daily",)}),
        (["@daily", "0 12 * * *"], {"expressions": ("@daily", "0 12 * * *")}),
        ({"every": "15m"}, {"every": timedelta(minutes=15)}),
        ({"assets": ["s3://a/b", "c"]}, {"assets": ("s3://a/b", "c"), "all_of": True}),
        ({"any_asset": ["c"]}, {"assets": ("c",), "all_of": False}),
        (
            {"timetable": "airflow.timetables.trigger.Some", "args": [1, [2]], "kwargs": {"x": {"y": None}}},
            {"timetable": "airflow.timetables.trigger.Some", "args": (1, [2]), "kwargs": {"x": {"y": None}}},
        ),
    ],
)
def test_every_way_to_say_when(schedule: Any, parts: dict[str, Any]) -> None:
    checked = check_options({"schedule": schedule})
    assert isinstance(checked, JobOptions), checked
    assert dataclasses.asdict(checked.schedule) == parts  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"])
def test_presets_are_those_of_airflow(preset: str) -> None:
    assert isinstance(check_options({"schedule": preset}), JobOptions)


def test_notification_has_short_and_long_forms() -> None:
    short = check_options({"on_failure": {"slack": "ops", "email": ["a@example.org"], "webhook": "hook"}})
    long = check_options(
        {
            "on_failure": {
                "slack": {"connection": "ops"},
                "email": {"to": ["a@example.org"], "connection": "smtp_default"},
                "webhook": {"connection": "hook"},
            }
        }
    )
    assert isinstance(short, JobOptions)
    assert isinstance(long, JobOptions)
    assert short.on_failure == long.on_failure
    sender = check_options({"on_failure": {"email": {"to": ["a@example.org"], "from": "b@example.org"}}})
    assert isinstance(sender, JobOptions)
    assert sender.on_failure is not None
    assert sender.on_failure.email is not None
    assert sender.on_failure.email.sender == "b@example.org"


@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        ({"depends_on": ["a"], "schedule": "@daily"}, "depends_on", "not both"),
        ({"depends_on": ["a"], "schedule": {"any_asset": ["x"]}}, "depends_on", "not both"),
        ({"catchup": True, "schedule": "@daily"}, "catchup", "start_date"),
        ({"catchup": True, "start_date": "2026-01-01"}, "catchup", "schedule"),
        ({"schedule": "@once"}, "schedule", "never runs without a start_date"),
        (
            {"schedule": "@continuous", "start_date": "2026-01-01", "max_active_runs": 2},
            "max_active_runs",
            "one run at a time",
        ),
        ({"start_date": "2026-01-02", "end_date": "2026-01-02"}, "end_date", "not after"),
        ({"max_retry_delay": "1h"}, "max_retry_delay", "backoff"),
        ({"execution_timeout": "2h", "dagrun_timeout": "1h"}, "dagrun_timeout", "longer"),
        ({"group": "x" * 95}, "group", "93 characters"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], option: str, words: str
) -> None:
    faults = check_options(options)
    assert isinstance(faults, list)
    (fault,) = faults
    assert fault.option == option
    assert words in f"{fault.what} {fault.fix}"


@pytest.mark.parametrize(
    "options",
    [
        {"depends_on": ["a"], "schedule": {"assets": ["s3://a/b"]}},
        {"catchup": True, "schedule": "@daily", "start_date": "2026-01-01"},
        {"schedule": "@continuous", "start_date": "2026-01-01", "max_active_runs": 1},
        {"retry_exponential_backoff": True, "max_retry_delay": "1h"},
        {"execution_timeout": "1h", "dagrun_timeout": "1h"},
        {"group": "x" * 93},
    ],
)
def test_options_that_go_together_are_taken(options: dict[str, Any]) -> None:
    assert isinstance(check_options(options), JobOptions)


def test_message_names_file_line_and_what_is_allowed(packages: Packages) -> None:
    packages.put(
        "sales/jobs/load.py",
        """\
        from airbridge.jobs import Job

        def main(argv):
            return 0

        JOB = Job(
            main,
            "Load",
            retries="3",
            retrys=3,
        )
        """,
    )
    first, second = packages.problems()
    assert first == (
        "sales/jobs/load.py:9: option 'retries' is '3' (str) | fix: give it a whole number from 0 to 100"
    )
    what, _, fix = second.partition(" | fix: ")
    assert what == "sales/jobs/load.py:10: there is no option 'retrys'"
    assert fix == f"did you mean 'retries'? options are {', '.join(OPTION_NAMES)}"


def test_wrong_key_inside_an_option_is_told_with_its_neighbours(packages: Packages) -> None:
    packages.job(on_failure={"slack": {"conection": "ops"}})
    problem = next(text for text in packages.problems() if "conection" in text)
    assert "has no 'slack.conection' | fix: did you mean 'connection'? it takes connection" in problem


def test_option_given_twice_is_told(packages: Packages) -> None:
    packages.put(
        "sales/jobs/load.py", 'def main(argv): ...\nJOB = (main, "x", {"retries": 1,\n "retries": 2})\n'
    )
    assert "sales/jobs/load.py:3: option 'retries' is given twice" in packages.only_problem()


def test_long_value_is_cut_in_the_message() -> None:
    faults = check_options({"queue": "x" * 10_000})
    assert isinstance(faults, list)
    assert len(faults[0].what) < 300
