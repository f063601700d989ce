"""The options of a job: names, types, defaults, meaning; one schema for the check and the documentation."""

from __future__ import annotations

import difflib
import math
import re
import zoneinfo
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from airbridge.jobs._schedules import (
    AssetSchedule,
    CronSchedule,
    EverySchedule,
    MomentSchedule,
    Schedule,
    TimetableSchedule,
    parse_duration,
    parse_schedule,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "OPTION_NAMES",
    "EmailTarget",
    "Fault",
    "JobOptions",
    "OnFailure",
    "SlackTarget",
    "WebhookTarget",
    "check_options",
    "parse_memory",
]

_MAX_ARGUMENTS: Final = 100
_MAX_TEXT: Final = 250  # what Airflow's columns for names hold
_MAX_TAG: Final = 100  # Airflow's TAG_MAX_LEN
_MAX_WAIT = timedelta(days=365)
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def _text(value: str) -> str:
    if not value.strip() or not value.isprintable() or len(value) > _MAX_TEXT:
        raise ValueError("no such text")
    return value


def _argument(value: str) -> str:
    # NUL cannot be stored by Postgres, a lone surrogate cannot be encoded.
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("no such text")
    return value


def _timezone(value: str) -> str:
    if value not in zoneinfo.available_timezones():
        raise ValueError("unknown")
    return value


def _date(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("no text")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo:
        raise ValueError("has an offset")
    return moment.replace(microsecond=0)


def _duration(value: object) -> timedelta:
    found = parse_duration(value)
    if found > _MAX_WAIT:
        raise ValueError("too long")
    return found


def _cpu(value: object) -> str:
    """Return it as Kubernetes and Docker write it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1024:
        return f"{value:g}"
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,6}m", value):
        return value
    raise ValueError("no amount")


def parse_memory(value: str) -> int:
    """Return the bytes of ``"512Mi"``; ValueError when it is no such text."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})(Ki|Mi|Gi)", value)
    if not match:
        raise ValueError("no amount")
    return int(match[1]) * _UNITS[match[2]]


def _memory(value: str) -> str:
    parse_memory(value)
    return value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a repeated value")
    return values


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


def _json_value(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _argument(value)
        case list() | tuple():
            return [_json_value(item) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {_argument(key): _json_value(item) for key, item in value.items()}
    raise ValueError("cannot be stored as JSON")


def _params(value: dict[str, Any]) -> dict[str, Any]:
    if "args" in value or not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name) for name in value):
        raise ValueError("a name that cannot be used")
    return {name: _json_value(item) for name, item in value.items()}


_REFERENCE = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?$"
_Text = Annotated[str, AfterValidator(_text)]
_Tag = Annotated[_Text, Field(max_length=_MAX_TAG)]
_Argument = Annotated[str, AfterValidator(_argument)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
_Connection = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$")]
_Mail = Annotated[str, Field(pattern=r"^[^@\s,<>]+@[^@\s,<>]+$", max_length=_MAX_TEXT)]
_Seconds = PlainSerializer(lambda value: value.total_seconds(), when_used="json-unless-none")
_Duration = Annotated[timedelta, BeforeValidator(_duration), _Seconds]
_Date = Annotated[datetime, BeforeValidator(_date)]


class _Model(BaseModel):
    # Strict: "3" is no number and 1 is no truth value; the author wrote it otherwise than was meant.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class SlackTarget(_Model):
    """A Slack incoming webhook: Airflow connection of type ``slackwebhook``."""

    connection: _Connection


class EmailTarget(_Model):
    """Mail addresses, and the Airflow connection of type ``smtp`` that reaches them."""

    to: Annotated[tuple[_Mail, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=50)]
    connection: _Connection = "smtp_default"
    sender: Annotated[_Mail | None, Field(alias="from")] = None


class WebhookTarget(_Model):
    """Any HTTP endpoint: Airflow connection of type ``http``; what failed is posted there as JSON."""

    connection: _Connection
    endpoint: Annotated[str, Field(pattern=r"^[!-~]*$", max_length=1000)] = ""


def _short(key: str, *types: type) -> Any:
    """Let ``"connection"`` stand for ``{"connection": "connection"}``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, types) else value)


class OnFailure(_Model):
    """Who is told when the job failed for good."""

    slack: Annotated[SlackTarget | None, _short("connection", str)] = None
    email: Annotated[EmailTarget | None, _short("to", list, tuple)] = None
    webhook: Annotated[WebhookTarget | None, _short("connection", str)] = None

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not (self.slack or self.email or self.webhook):
            raise ValueError("nobody")
        return self


def _option(default: Any, allowed: str, meaning: str) -> Any:
    """Return a field; ``allowed`` is what messages and docs/jobs.md say about its values."""
    return Field(default=default, title=allowed, description=meaning)


class JobOptions(_Model):
    """What may stand in ``Job(...)`` after the description."""

    schedule: Annotated[Schedule | None, BeforeValidator(parse_schedule)] = _option(
        None,
        'a cron expression of 5 fields, a preset such as "@daily", a list of cron expressions, {"every": '
        '"15m"}, {"assets": [...]}, {"any_asset": [...]}, {"timetable": "airflow.timetables.module.Class", '
        '"args": [...], "kwargs": {...}}, or None',
        "when the job runs by itself; None: only when it is triggered",
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = _option(
        "UTC", 'a time zone such as "Europe/Berlin"', "the clock of `schedule`, `start_date` and `end_date`"
    )
    start_date: _Date | None = _option(
        None, 'a date such as "2026-01-31" or "2026-01-31T05:00"', "no scheduled run before"
    )
    end_date: _Date | None = _option(
        None, 'a date such as "2026-01-31" or "2026-01-31T05:00"', "no scheduled run after"
    )
    catchup: bool = _option(
        False, "True or False", "run what was missed since `start_date`, which it needs, one by one"
    )
    depends_on: Annotated[
        tuple[Annotated[str, Field(pattern=_REFERENCE)], ...],
        BeforeValidator(_as_tuple),
        Field(max_length=50),
        AfterValidator(_distinct),
    ] = _option(
        (),
        'a list of jobs: "job" of this package, or "package.job"',
        "runs when all of them have succeeded since its last run",
    )
    args: Annotated[tuple[_Argument, ...], BeforeValidator(_as_tuple), Field(max_length=_MAX_ARGUMENTS)] = (
        _option(
            (),
            "a list of at most 100 texts",
            'what the entrypoint gets when the run brings no `{"args": [...]}`; Airflow\'s templates such as '
            "`{{ params.day }}` are filled in",
        )
    )
    params: Annotated[dict[str, Any], AfterValidator(_params)] = _option(
        {},
        'a dict of names, other than "args", and JSON values',
        "values for templates in `args`, which a run may override",
    )
    retries: Annotated[int, Field(ge=0, le=100)] = _option(
        0, "a whole number from 0 to 100", "how often a failed attempt is tried again"
    )
    retry_delay: _Duration = _option(
        timedelta(minutes=5), 'seconds, or text such as "90s", "15m", "2h", "1d"', "wait before a retry"
    )
    retry_exponential_backoff: bool = _option(
        False, "True or False", "double the wait with each retry (Airflow adds some jitter)"
    )
    max_retry_delay: _Duration | None = _option(
        None, 'seconds, or text such as "90s", "15m", "2h", "1d"', "longest wait with backoff"
    )
    execution_timeout: _Duration | None = _option(
        None,
        'seconds, or text such as "90s", "15m", "2h", "1d"',
        "an attempt that runs longer is stopped and has failed",
    )
    dagrun_timeout: _Duration | None = _option(
        None,
        'seconds, or text such as "90s", "15m", "2h", "1d"',
        "deadline of the whole run, with waiting and retries; a run that misses it has failed",
    )
    queue: _Name | None = _option(
        None,
        "letters, digits, '_', '.' and '-', at most 128",
        "edge hosts that serve this queue run it; None: `default`",
    )
    pool: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")] | None = _option(
        None, "the name of an Airflow pool", "its slots bound what runs at once; None: `default_pool`"
    )
    pool_slots: Annotated[int, Field(ge=1, le=1000)] = _option(
        1, "a whole number from 1 to 1000", "slots of the pool that it takes"
    )
    priority_weight: Annotated[int, Field(ge=1, le=1_000_000)] = _option(
        1, "a whole number from 1 to 1000000", "the higher goes first when slots are scarce"
    )
    max_active_runs: Annotated[int, Field(ge=1, le=1000)] | None = _option(
        None,
        "a whole number from 1 to 1000",
        "runs of this job at once; a run is one task; None: 16",
    )
    cpu: Annotated[str, BeforeValidator(_cpu)] | None = _option(
        None,
        'cores such as 0.5, 2 or "500m"',
        "for jobs in containers of their own; a process has no such limit",
    )
    memory: Annotated[str, AfterValidator(_memory)] | None = _option(
        None,
        'text such as "512Mi" or "2Gi"',
        "what the job may allocate; beyond it Python raises MemoryError, and the worker lives on",
    )
    on_failure: OnFailure | None = _option(
        None,
        '{"slack": "connection", "email": ["a@example.org"], "webhook": "connection"}, at least one of them',
        "who is told when the last attempt failed or the deadline passed",
    )
    group: _Tag | None = _option(
        None, "a text of at most 93 characters", "related jobs share it: the tag `group:<name>`"
    )
    tags: Annotated[
        tuple[_Tag, ...], BeforeValidator(_as_tuple), Field(max_length=30), AfterValidator(_distinct)
    ] = _option((), "a list of at most 30 texts of at most 100 characters", "more tags of the DAG")
    owner: _Text | None = _option(None, "a text", "shown in the web UI; None: the package's name")

    @property
    def deadline_seconds(self) -> float | None:
        """Seconds that a whole run may take."""
        return self.dagrun_timeout.total_seconds() if self.dagrun_timeout else None


OPTION_NAMES: Final = tuple(JobOptions.model_fields)

_MAX_GROUP: Final = _MAX_TAG - len("group:") - 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong option: its name, what is wrong with it, what would be right."""

    option: str
    what: str
    fix: str


def check_options(values: Mapping[str, Any]) -> JobOptions | list[Fault]:
    """Check what an author wrote; return the options, or everything that is wrong with them."""
    faults: list[Fault] = []
    try:
        options = JobOptions.model_validate(dict(values))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False):
            fault = _fault(detail["type"], tuple(map(str, detail["loc"])), values)
            if fault not in faults:
                faults.append(fault)
        return faults
    return _contradictions(options) or options


def _fault(kind: str, place: tuple[str, ...], values: Mapping[str, Any]) -> Fault:
    option = place[0] if place else ""
    if kind == "extra_forbidden" and len(place) == 1:
        close = difflib.get_close_matches(option, OPTION_NAMES, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return Fault(option, f"there is no option '{option}'", f"{hint}options are {', '.join(OPTION_NAMES)}")
    if kind == "extra_forbidden":
        inner = place[-1]
        allowed = ", ".join(_keys_of(place))
        close = difflib.get_close_matches(inner, _keys_of(place), n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return Fault(option, f"option '{option}' has no '{'.'.join(place[1:])}'", f"{hint}it takes {allowed}")
    value = values.get(option)
    return Fault(
        option,
        f"option '{option}' is {_shown(value)} ({type(value).__name__})",
        f"give it {JobOptions.model_fields[option].title}",
    )


def _keys_of(place: tuple[str, ...]) -> list[str]:
    """Return what may stand where a nested key stood that may not."""
    targets: dict[str, type[BaseModel]] = {
        "slack": SlackTarget,
        "email": EmailTarget,
        "webhook": WebhookTarget,
    }
    model = targets.get(place[1], OnFailure) if len(place) > 2 else OnFailure
    return [field.alias or name for name, field in model.model_fields.items()]


_MAX_SHOWN: Final = 120


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _contradictions(options: JobOptions) -> list[Fault]:
    """Name options that are right alone and wrong together."""
    faults: list[Fault] = []
    schedule = options.schedule
    if options.depends_on and not (
        schedule is None or (isinstance(schedule, AssetSchedule) and schedule.all_of)
    ):
        faults.append(
            Fault(
                "depends_on",
                "a job runs after other jobs or on a schedule, not both",
                "drop 'schedule' or 'depends_on'",
            )
        )
    timed = isinstance(schedule, CronSchedule | EverySchedule | MomentSchedule | TimetableSchedule)
    if options.catchup and not (options.start_date and timed):
        faults.append(
            Fault("catchup", "catchup needs a schedule and a start_date", "add both, or drop 'catchup'")
        )
    if isinstance(schedule, MomentSchedule) and not options.start_date:
        faults.append(
            Fault("schedule", f"'{schedule.preset}' never runs without a start_date", "add 'start_date'")
        )
    if (
        isinstance(schedule, MomentSchedule)
        and schedule.preset == "@continuous"
        and (options.max_active_runs or 1) > 1
    ):
        faults.append(
            Fault("max_active_runs", "'@continuous' has one run at a time", "set 'max_active_runs' to 1")
        )
    if options.start_date and options.end_date and options.end_date <= options.start_date:
        faults.append(Fault("end_date", "end_date is not after start_date", "correct one of the two"))
    if options.max_retry_delay and not options.retry_exponential_backoff:
        faults.append(
            Fault(
                "max_retry_delay",
                "max_retry_delay bounds the backoff, which is off",
                "add 'retry_exponential_backoff': True, or drop it",
            )
        )
    if (
        options.execution_timeout
        and options.dagrun_timeout
        and options.dagrun_timeout < options.execution_timeout
    ):
        faults.append(
            Fault(
                "dagrun_timeout",
                "the run's deadline ends before one attempt may",
                "make dagrun_timeout longer than execution_timeout",
            )
        )
    if options.group and len(options.group) > _MAX_GROUP:
        faults.append(
            Fault(
                "group",
                f"option 'group' has {len(options.group)} characters",
                f"give it {JobOptions.model_fields['group'].title}",
            )
        )
    return faults
