"""Make the DAG file of a job: the same text for the same job, formatted, and safe whatever the job says."""

from __future__ import annotations

import ast
import enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import jinja2

from airbridge.jobs._dependencies import resolve_reference
from airbridge.jobs._marker import Origin, mark, origin_of
from airbridge.jobs._python_text import Call, Name, python_text
from airbridge.jobs._schedules import (
    AssetSchedule,
    CronSchedule,
    EverySchedule,
    MomentSchedule,
    TimetableSchedule,
)
from airbridge.jobs.options import JobOptions, parse_memory
from airbridge.manifest import SOURCE_FOLDER

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from airbridge.jobs._model import DiscoveredJob

__all__ = ["TASK_ID", "Code", "Origin", "asset_uri", "generate_dag_file", "origin_of"]

TASK_ID: Final = "run"
"""Id of the only task of a generated DAG."""

_DEFAULTS = JobOptions()


class Code(enum.StrEnum):
    """Where a worker finds the code of a job."""

    RELEASE = "release"
    """In the release, beside the DAG file."""
    INSTALLED = "installed"
    """In the worker's own Python: the edge image has the package installed."""


def asset_uri(package: str, job: str) -> str:
    """Return the URI of the Airflow asset that a job updates when it succeeds."""
    return f"airbridge://jobs/{package}/{job}"


def generate_dag_file(job: DiscoveredJob, code: Code = Code.RELEASE) -> bytes:
    """Return the DAG file of a job, with its mark."""
    source = SOURCE_FOLDER if code is Code.RELEASE else ""
    dag, task, run = _dag_arguments(job), _task_arguments(job), _run_arguments(job, source)
    text = _template().render(
        job=job,
        source=source,
        standard_imports=_standard_imports(source, [*dag, *task]),
        imports=_imports([*dag, *task]),
        dag_arguments=dag,
        task_arguments=task,
        run_arguments=run,
        args=list(job.options.args),
    )
    ast.parse(text)  # a template that was broken must not reach a bucket
    return mark(text)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("airbridge.jobs"),
        autoescape=False,  # noqa: S701  (the filter `python` writes every value; there is no HTML here)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = python_text
    return environment.get_template("job_dag.py.jinja")


_Arguments = list[tuple[str, Any]]


def _dag_arguments(job: DiscoveredJob) -> _Arguments:
    options = job.options
    arguments: _Arguments = [
        ("dag_id", job.dag_id),
        ("description", job.description),
        ("schedule", _schedule(job)),
    ]
    if options.start_date:
        arguments.append(("start_date", _moment(options.start_date, options.timezone)))
    if options.end_date:
        arguments.append(("end_date", _moment(options.end_date, options.timezone)))
    arguments.append(("catchup", options.catchup))
    runs = options.max_active_runs
    if isinstance(options.schedule, MomentSchedule) and options.schedule.preset == "@continuous":
        runs = 1  # what this timetable insists on
    if runs is not None:
        arguments.append(("max_active_runs", runs))
    if options.dagrun_timeout:
        arguments.append(("dagrun_timeout", _seconds(options.dagrun_timeout)))
        if options.on_failure:
            arguments.append(("on_failure_callback", Call("tell_of_missed_deadline", (), _targets(options))))
    arguments += [("params", _params(options)), ("tags", _tags(job)), ("doc_md", _documentation(job))]
    return arguments


def _task_arguments(job: DiscoveredJob) -> _Arguments:
    options = job.options
    arguments: _Arguments = [
        ("task_id", TASK_ID),
        ("owner", options.owner or job.package),
        ("outlets", [_job_asset(job.reference)]),
        ("retries", options.retries),
        ("retry_delay", _seconds(options.retry_delay)),
        ("retry_exponential_backoff", options.retry_exponential_backoff),
    ]
    for name in ("max_retry_delay", "execution_timeout"):
        if (value := getattr(options, name)) is not None:
            arguments.append((name, _seconds(value)))
    for name in ("queue", "pool", "pool_slots", "priority_weight"):
        if (value := getattr(options, name)) != getattr(_DEFAULTS, name):
            arguments.append((name, value))
    if options.on_failure:
        arguments.append(("on_failure_callback", Call("tell_of_failure", (), _targets(options))))
    return arguments


def _run_arguments(job: DiscoveredJob, source: str) -> _Arguments:
    arguments: _Arguments = [("source", Name("_SOURCE") if source else None)]
    if job.options.memory:
        arguments.append(("memory_bytes", parse_memory(job.options.memory)))
    return arguments


def _schedule(job: DiscoveredJob) -> Any:  # noqa: PLR0911  (one return a kind reads best)
    options = job.options
    jobs = [_job_asset(resolve_reference(job.package, other)) for other in options.depends_on]
    zone = {"timezone": options.timezone}
    match options.schedule:
        case CronSchedule(expressions=(expression,)):
            return Call("CronTriggerTimetable", (expression,), zone)
        case CronSchedule(expressions=expressions):
            return Call("MultipleCronTriggerTimetable", expressions, zone)
        case EverySchedule(every=every):
            return Call("DeltaTriggerTimetable", (_seconds(every),))
        case MomentSchedule(preset=preset):
            return preset
        case TimetableSchedule(timetable=path, args=args, kwargs=kwargs):
            return Call(path, args, kwargs)
        case AssetSchedule(assets=assets, all_of=True):
            return [*jobs, *(Call("Asset", (asset,)) for asset in assets)]
        case AssetSchedule(assets=assets):
            return Call("AssetAny", tuple(Call("Asset", (asset,)) for asset in assets))
        case _:
            return jobs or None


def _job_asset(reference: str) -> Call:
    package, _, name = reference.partition(".")
    # One group for all: an asset that two DAG files name must look the same in both.
    arguments = {"name": reference, "uri": asset_uri(package, name), "group": "airbridge-job"}
    return Call("Asset", (), arguments)


def _moment(moment: datetime, timezone: str) -> Call:
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return Call("pendulum.datetime", parts, {"tz": timezone}, one_line=True)


def _seconds(duration: timedelta) -> Call:
    seconds = duration.total_seconds()
    return Call(
        "timedelta", (), {"seconds": int(seconds) if seconds.is_integer() else seconds}, one_line=True
    )


def _params(options: JobOptions) -> dict[str, Any]:
    schema = {
        "type": ["null", "array"],
        "items": {"type": "string"},
        "title": "Arguments",
        "description": "One a line; without any, the job gets its own.",
    }
    return {"args": Call("Param", (None,), schema), **options.params}


def _tags(job: DiscoveredJob) -> list[str]:
    group = [f"group:{job.options.group}"] if job.options.group else []
    return list(dict.fromkeys([job.package, "etl", "auto-generated", *group, *job.options.tags]))


def _targets(options: JobOptions) -> dict[str, Any]:
    targets = options.on_failure
    if targets is None:
        return {}
    found: dict[str, Any] = {}
    if targets.slack:
        found["slack_connection"] = targets.slack.connection
    if targets.email:
        found["email_to"] = list(targets.email.to)
        found["email_connection"] = targets.email.connection
        if targets.email.sender:
            found["email_from"] = targets.email.sender
    if targets.webhook:
        found["webhook_connection"] = targets.webhook.connection
        found["webhook_endpoint"] = targets.webhook.endpoint
    return found


def _documentation(job: DiscoveredJob) -> str:
    # Airflow takes a text that ends in ".md" for a file to read: this one ends in a sentence of ours.
    lines = [
        job.description,
        "",
        f"Job `{job.reference}`, generated from `{job.file}`.",
        'Arguments: trigger it with `{"args": ["--option", "value"]}`.',
    ]
    return "\n".join(lines)


def _standard_imports(source: str, arguments: _Arguments) -> list[str]:
    lines = ["from datetime import timedelta"] if _calls(arguments, "timedelta") else []
    return lines + (["from pathlib import Path"] if source else [])


_TRIGGERS = ("CronTriggerTimetable", "DeltaTriggerTimetable", "MultipleCronTriggerTimetable")
_NOTIFIERS = ("tell_of_failure", "tell_of_missed_deadline")


def _imports(arguments: _Arguments) -> list[str]:
    schedule = dict(arguments)["schedule"]
    lines = ["import pendulum"] if _calls(arguments, "pendulum.datetime") else []
    if isinstance(schedule, Call) and "." in schedule.function:
        # The whole path, so that no class of somebody's hides a name of this file.
        lines = sorted([*lines, f"import {schedule.function.rpartition('.')[0]}"])
    if used := [name for name in _NOTIFIERS if _calls(arguments, name)]:
        lines.append(f"from airbridge.jobs.notifiers import {', '.join(used)}")
    sdk = ["DAG", "Asset", *(["AssetAny"] if _calls(arguments, "AssetAny") else []), "Param"]
    lines.append(f"from airflow.sdk import {', '.join(sdk)}, get_current_context, task")
    if isinstance(schedule, Call) and schedule.function in _TRIGGERS:
        lines.append(f"from airflow.timetables.trigger import {schedule.function}")
    return lines


def _calls(value: Any, function: str) -> bool:
    """Tell whether a function is called anywhere in a value."""
    match value:
        case Call():
            inside: list[Any] = [*value.args, *value.kwargs.values()]
            return value.function == function or any(_calls(item, function) for item in inside)
        case list() | tuple():
            return any(_calls(item, function) for item in value)
        case dict():
            return any(_calls(item, function) for item in value.values())
    return False
