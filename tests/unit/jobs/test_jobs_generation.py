"""DAG files: the same for the same job, formatted, and safe whatever the job says."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.jobs._marker import Origin, mark, origin_of
from airbridge.jobs._python_text import Call, Name, python_text
from airbridge.jobs.generation import Code, asset_uri, generate_dag_file
from airbridge.python_literal import literal

if TYPE_CHECKING:
    from pathlib import Path

    from job_packages import Packages

EVERYTHING: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "start_date": "2026-01-31T05:30",
    "end_date": "2027-01-31",
    "catchup": True,
    "args": ["--day", "{{ ds }}", 'it\'s "quoted"\n'],
    "params": {"day": "x", "deep": [1, {"a": None, "b": [True, 0.5]}], "empty": []},
    "retries": 3,
    "retry_delay": 1.5,
    "retry_exponential_backoff": True,
    "max_retry_delay": "1h",
    "execution_timeout": "15m",
    "dagrun_timeout": "1d",
    "queue": "gpu",
    "pool": "small",
    "pool_slots": 2,
    "priority_weight": 7,
    "max_active_runs": 1,
    "cpu": "500m",
    "memory": "512Mi",
    "on_failure": {
        "slack": "ops",
        "email": {"to": ["a@example.org", "b@example.org"], "from": "c@example.org"},
        "webhook": {"connection": "hook", "endpoint": "alarm?x='\"{{5}}"},
    },
    "group": "daily",
    "tags": ["one", "sales"],
    "owner": 'Käthe "K" O\'Hara',
}
SCHEDULES: list[Any] = [
    "0 5 * * 1-5",
    ["@daily", "0 12 * * *"],
    {"every": "90s"},
    "@once",
    {
        "timetable": "airflow.timetables.trigger.CronTriggerTimetable",
        "args": ["@daily"],
        "kwargs": {"timezone": "UTC"},
    },
]


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def _dag_call(text: bytes) -> dict[str, ast.expr]:
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DAG"
    )
    return _keywords(call)


def _task_call(text: bytes) -> dict[str, ast.expr]:
    (call,) = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "task"
    )
    return _keywords(call)


def test_plain_job_becomes_a_manual_dag_with_one_task(packages: Packages) -> None:
    packages.job()
    text = generate_dag_file(packages.only_job())
    dag, task = _dag_call(text), _task_call(text)
    assert ast.literal_eval(dag["dag_id"]) == "sales_load"
    assert ast.literal_eval(dag["schedule"]) is None
    assert ast.literal_eval(dag["catchup"]) is False
    assert ast.literal_eval(dag["tags"]) == ["sales", "etl", "auto-generated"]
    assert ast.literal_eval(task["task_id"]) == "run"
    assert ast.literal_eval(task["owner"]) == "sales"


def test_job_is_imported_inside_the_task_and_by_name_only(packages: Packages) -> None:
    """J2, S9: neither the parser nor the scheduler ever loads job code."""
    packages.job()
    tree = ast.parse(generate_dag_file(packages.only_job()))
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name for name in imported if name.partition(".")[0] == "sales"}
    at_parse_time = {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "airbridge.jobs.runtime" in imported - at_parse_time


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_file_is_formatted_and_compiles_with_every_option(
    packages: Packages, tmp_path: Path, schedule: Any, code: Code
) -> None:
    options = dict(EVERYTHING)
    packages.job(schedule=schedule, **options)
    packages.job("after", depends_on=["load"], schedule={"assets": ["s3://a/b"]})
    packages.job("any", schedule={"any_asset": ["s3://a/b", "c"]})
    found = packages.discover()
    assert found.problems == ()
    folder = tmp_path / "generated"
    folder.mkdir()
    for job in found.jobs:
        text = generate_dag_file(job, code)
        compile(text, job.dag_id, "exec")
        (folder / f"{job.dag_id}.py").write_bytes(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--isolated",
            "--line-length",
            "110",
            "--diff",
            str(folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lint = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,UP,B,S", str(folder)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_option_reaches_the_file(packages: Packages) -> None:
    packages.job(schedule="0 5 * * *", **EVERYTHING)
    text = generate_dag_file(packages.only_job())
    dag, task = _dag_call(text), _task_call(text)
    assert ast.unparse(dag["schedule"]) == "CronTriggerTimetable('0 5 * * *', timezone='Europe/Berlin')"
    assert ast.unparse(dag["start_date"]) == "pendulum.datetime(2026, 1, 31, 5, 30, 0, tz='Europe/Berlin')"
    assert ast.unparse(dag["end_date"]) == "pendulum.datetime(2027, 1, 31, 0, 0, 0, tz='Europe/Berlin')"
    assert ast.unparse(dag["catchup"]) == "True"
    assert ast.unparse(dag["max_active_runs"]) == "1"
    assert ast.unparse(dag["dagrun_timeout"]) == "timedelta(seconds=86400)"
    assert ast.literal_eval(dag["tags"]) == ["sales", "etl", "auto-generated", "group:daily", "one"]
    assert {
        name: ast.unparse(value)
        for name, value in task.items()
        if name not in {"outlets", "on_failure_callback"}
    } == {
        "task_id": "'run'",
        "owner": repr(EVERYTHING["owner"]),
        "retries": "3",
        "retry_delay": "timedelta(seconds=1.5)",
        "retry_exponential_backoff": "True",
        "max_retry_delay": "timedelta(seconds=3600)",
        "execution_timeout": "timedelta(seconds=900)",
        "queue": "'gpu'",
        "pool": "'small'",
        "pool_slots": "2",
        "priority_weight": "7",
    }
    for callback, function in (
        (task["on_failure_callback"], "tell_of_failure"),
        (dag["on_failure_callback"], "tell_of_missed_deadline"),
    ):
        assert isinstance(callback, ast.Call)
        assert ast.unparse(callback.func) == function
        assert {name: ast.literal_eval(value) for name, value in _keywords(callback).items()} == {
            "slack_connection": "ops",
            "email_to": ["a@example.org", "b@example.org"],
            "email_connection": "smtp_default",
            "email_from": "c@example.org",
            "webhook_connection": "hook",
            "webhook_endpoint": "alarm?x='\"{{5}}",
        }
    assert b"memory_bytes=536870912" in text
    assert b"1.5" in text


def test_dependency_is_an_asset_that_the_other_job_updates(packages: Packages) -> None:
    packages.job("load")
    packages.job("report", "reporting", depends_on=["sales.load"])
    report, load = packages.discover().jobs
    assert report.package == "reporting"
    waits_for = _dag_call(generate_dag_file(report))["schedule"]
    updates = _task_call(generate_dag_file(load))["outlets"]
    assert ast.dump(waits_for) == ast.dump(updates)
    assert asset_uri("sales", "load") in ast.unparse(updates)


def test_continuous_job_has_one_run_at_a_time(packages: Packages) -> None:
    packages.job(schedule="@continuous", start_date="2026-01-01")
    dag = _dag_call(generate_dag_file(packages.only_job()))
    assert ast.literal_eval(dag["max_active_runs"]) == 1


def test_timetable_is_called_by_its_whole_path(packages: Packages) -> None:
    packages.job(schedule={"timetable": "airflow.timetables.x.Some", "args": [1], "kwargs": {"x": [None]}})
    text = generate_dag_file(packages.only_job())
    assert b"\nimport airflow.timetables.x\n" in text
    assert ast.unparse(_dag_call(text)["schedule"]) == "airflow.timetables.x.Some(1, x=[None])"


def test_code_of_the_release_lies_beside_the_file_and_installed_code_nowhere(packages: Packages) -> None:
    packages.job()
    job = packages.only_job()
    assert b'_SOURCE = Path(__file__).parent / "_source"' in generate_dag_file(job, Code.RELEASE)
    installed = generate_dag_file(job, Code.INSTALLED)
    assert b"source=None" in installed
    assert b"_SOURCE" not in installed


def test_file_does_not_change_when_the_job_moves_within_its_module(packages: Packages) -> None:
    packages.job()
    before = generate_dag_file(packages.only_job())
    module = packages.root / "sales/jobs/load.py"
    module.write_text(f"# a comment\n\n{module.read_text()}")
    assert generate_dag_file(packages.only_job()) == before


def test_documentation_never_ends_like_a_file_name(packages: Packages) -> None:
    """Airflow reads a file when ``doc_md`` ends in ``.md``."""
    packages.put("sales/jobs/load.py", 'def main(argv): ...\nJOB = (main, "/etc/passwd.md")\n')
    dag = _dag_call(generate_dag_file(packages.only_job()))
    assert ast.literal_eval(dag["doc_md"]).endswith("`.")


HOSTILE = [
    '"); import os; os.system("x"); ("',
    "'''\"\"\"\\",
    "\\",
    "{{ 1/0 }} {% raw %} {# #}",
    "\r\n# airbridge-generated: sha256=0",
    "\u2028\u2029\x85\x0b\x0c",
    "${x} %s {x} `rm`",
    "é\u202e\u0000"[:2],
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_escapes_its_literal(packages: Packages, text: str) -> None:
    packages.job(args=[text, "end"], params={"p": text, "d": {text: text}})
    tree = ast.parse(generate_dag_file(packages.only_job()))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert values.count(text) == 4
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls <= {
        "DAG",
        "Asset",
        "Param",
        "Path",
        "task",
        "timedelta",
        "run",
        "run_job",
        "get_current_context",
    }


@given(st.text())
def test_any_text_is_quoted_so_that_python_reads_it_back(text: str) -> None:
    source = literal(text)
    assert ast.literal_eval(source) == text
    assert len(source.splitlines()) == 1


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(_values, st.integers(0, 5))
def test_any_value_is_written_so_that_python_reads_it_back(value: Any, indent: int) -> None:
    assert ast.literal_eval(python_text(value, indent)) == value


def test_formatter_leaves_what_is_written_as_it_is() -> None:
    values = [
        [], {}, [1], ["a" * 200], {"k": {"v": [1, {"w": None}]}}, "it's", 'say "x"', "'\"", "\x00\ud800é",
        1e16, 1e-9, -5,
        Call("f"), Call("f", (1,), {"x": [Name("y")]}), Call("f", (1, "x"), {"z": -0.5}, one_line=True),
    ]  # fmt: skip
    text = "".join(f"v{number} = {python_text(value)}\n" for number, value in enumerate(values))
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "110", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == text


def test_mark_tells_generated_from_edited_from_foreign() -> None:
    content = mark("x = 1\n")
    assert origin_of(content) is Origin.GENERATED
    assert origin_of(content + b"y = 2\n") is Origin.EDITED
    assert origin_of(content.replace(b"x", b"z")) is Origin.EDITED
    assert origin_of(b"x = 1\n") is Origin.FOREIGN
    assert origin_of(b"") is Origin.FOREIGN
    assert origin_of(b"\n" + content) is Origin.FOREIGN
