"""Finds the lines that carry an id, and says in a few words what each of them says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["TASK_LOG", "Step", "container_steps", "task_steps"]

TASK_LOG: Final = "task log"

# `docker compose logs --timestamps --no-color`, which clears the terminal's line all the same (2.26).
_LINE: Final = re.compile(
    r"(?:\x1b\[2K)?(?P<service>[a-z0-9-]+?)-[0-9]+ +\| (?P<time>[0-9T:.-]+Z) (?P<text>.*)"
)
_NOT_DETAILS: Final = frozenset({"event", "level", "timestamp", "logger", "logger_name", "correlation_id"})
_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One line about an attempt."""

    time: datetime
    host: str
    """The control plane, or an edge host."""
    service: str
    what: str
    line: dict[str, Any]


def container_steps(host: str, lines: Iterable[str], ids: Sequence[str]) -> Iterator[Step]:
    """Yield the lines of a compose project's logs that carry one of ``ids``."""
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if not match or not any(one in match["text"] for one in ids):
            continue
        said = _object(match["text"])
        yield Step(_moment(match["time"]), host, match["service"], _words(said), said)


def task_steps(lines: Iterable[str], ids: Sequence[str]) -> Iterator[Step]:
    """Yield the lines of a task's own log that carry one of ``ids``."""
    last: datetime | None = None
    for line in lines:
        said = _object(line)
        if said.get("correlation_id") not in ids:
            continue
        last = _moment(str(said["timestamp"])) if "timestamp" in said else last
        if last is not None:
            yield Step(last, "", TASK_LOG, str(said.get("event", "")), said)


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"event": text}


def _moment(text: str) -> datetime:
    # Docker writes nanoseconds, of which a datetime holds the first six digits.
    moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _words(said: dict[str, Any]) -> str:
    request = said.get("request")
    if isinstance(request, dict):  # Caddy's access log
        took = float(said.get("duration", 0)) * _MS
        return f"{request.get('method')} {request.get('uri')} {said.get('status')} {took:.0f} ms"
    if said.get("logger") == "airbridge.access":
        return f"{said.get('call')} {said.get('status')} {said.get('duration_ms')} ms"
    details = " ".join(f"{name}={value}" for name, value in said.items() if name not in _NOT_DETAILS)
    return f"{said.get('event', '')} {details}".strip()
