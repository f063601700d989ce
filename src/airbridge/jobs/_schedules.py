"""When a job runs by itself: the ways to say it, checked with the library that Airflow itself asks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from croniter import CroniterError, croniter

__all__ = [
    "AssetSchedule",
    "CronSchedule",
    "EverySchedule",
    "MomentSchedule",
    "Schedule",
    "TimetableSchedule",
    "parse_duration",
    "parse_schedule",
]

PRESETS: Final = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
"""What Airflow 3.0 reads as a cron expression."""

MOMENTS: Final = ("@once", "@continuous")

_DURATION = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_SECONDS: Final = 10 * 365 * 86400
_CRON_FIELDS: Final = 5
_MAX_CRONS: Final = 20
_MAX_ASSETS: Final = 50
# Airflow's own only: the DAG processor calls it, and a path of the author's choice would be any code at all.
_TIMETABLE = re.compile(r"airflow\.timetables\.[a-z_]{1,50}\.[A-Z][A-Za-z]{1,50}")
_ASSET = re.compile(r"[!-~]([ -~]*[!-~])?")
_MAX_ASSET: Final = 1000
_MAX_DEPTH: Final = 5


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """At the times of cron expressions."""

    expressions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EverySchedule:
    """Again and again after a while."""

    every: timedelta


@dataclass(frozen=True, slots=True)
class MomentSchedule:
    """``@once`` or ``@continuous``."""

    preset: str


@dataclass(frozen=True, slots=True)
class TimetableSchedule:
    """A timetable of Airflow."""

    timetable: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssetSchedule:
    """When Airflow assets were updated: all of them, or any."""

    assets: tuple[str, ...]
    all_of: bool


Schedule = CronSchedule | EverySchedule | MomentSchedule | TimetableSchedule | AssetSchedule


def parse_duration(value: object) -> timedelta:
    """Read seconds, or text such as ``"15m"``; ValueError for anything else, and for nothing at all."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(int(match[1]) * _UNIT_SECONDS[match[2]])
    else:
        raise ValueError("no duration")
    if not math.isfinite(seconds) or not 0 < seconds <= _MAX_SECONDS:
        raise ValueError("no duration")
    return timedelta(seconds=seconds)


def parse_schedule(value: Any) -> Schedule | None:  # noqa: PLR0911  (one return a form reads best)
    """Read what an author wrote; ValueError when it is no schedule."""
    match value:
        case None:
            return None
        case str() if value in MOMENTS:
            return MomentSchedule(value)
        case str():
            return CronSchedule((_cron(value),))
        case list() | tuple() if 1 <= len(value) <= _MAX_CRONS and len(set(map(repr, value))) == len(value):
            return CronSchedule(tuple(_cron(item) for item in value))
        case {"every": every} if len(value) == 1:
            return EverySchedule(parse_duration(every))
        case {"assets": list() | tuple() as assets} if len(value) == 1:
            return AssetSchedule(_assets(assets), all_of=True)
        case {"any_asset": list() | tuple() as assets} if len(value) == 1:
            return AssetSchedule(_assets(assets), all_of=False)
        case {"timetable": str() as path, **rest} if set(rest) <= {"args", "kwargs"}:
            return _timetable(path, rest.get("args", []), rest.get("kwargs", {}))
        case CronSchedule() | EverySchedule() | MomentSchedule() | TimetableSchedule() | AssetSchedule():
            return value
    raise ValueError("no schedule")


def _cron(expression: object) -> str:
    if not isinstance(expression, str):
        raise ValueError("no text")
    if expression in PRESETS:
        return expression
    fields = expression.split()
    # croniter knows seconds and years too, and "hashed" fields, which Airflow's descriptions do not.
    if len(fields) != _CRON_FIELDS or not re.fullmatch(r"[0-9A-Za-z*,/#? -]+", expression):
        raise ValueError("no cron expression")
    try:
        moments = croniter(expression)
        moments.get_next()  # 30 February never comes
    except (CroniterError, ValueError, KeyError, AttributeError):
        raise ValueError("no cron expression") from None
    return " ".join(fields)


def _assets(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    if not 1 <= len(values) <= _MAX_ASSETS or len(set(map(repr, values))) != len(values):
        raise ValueError("too few or too many")
    for value in values:
        if not isinstance(value, str) or not _ASSET.fullmatch(value) or len(value) > _MAX_ASSET:
            raise ValueError("no asset")
        if value.partition(":")[0] == "airflow":
            raise ValueError("Airflow keeps this scheme to itself")
    return tuple(values)


def _timetable(path: str, args: object, kwargs: object) -> TimetableSchedule:
    if not _TIMETABLE.fullmatch(path):
        raise ValueError("no timetable of Airflow")
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise ValueError("no arguments")
    if not all(isinstance(name, str) and name.isidentifier() for name in kwargs):
        raise ValueError("no arguments")
    for item in [*args, *kwargs.values()]:
        _check_literal(item, _MAX_DEPTH)
    return TimetableSchedule(path, tuple(args), dict(kwargs))


def _check_literal(value: object, depth: int) -> None:
    """Let through what JSON has."""
    if depth == 0:
        raise ValueError("too deep")
    match value:
        case None | bool() | int() | str():
            return
        case float() if math.isfinite(value):
            return
        case list():
            for item in value:
                _check_literal(item, depth - 1)
            return
        case dict() if all(isinstance(key, str) for key in value):
            for item in value.values():
                _check_literal(item, depth - 1)
            return
    raise ValueError("no literal")
