"""The id of the attempt that a process works on, in each line that it logs.

The id is Airflow's own, that of the task instance: new for each try, the same for all parts of a deferred
one. A supervisor, which our runner tells the id of each attempt, forks the task process. That one is told
the id at its start, through Airflow's listeners, and says it with each of its messages; a supervisor of the
stock worker, which writes them into the task's log, learns it from the first. So the lines of both carry it,
what the task prints included, and so does what the supervisor writes to the container's own log.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["FIELD", "add_correlation", "attempt_in_arguments", "learn_correlation", "work_on"]

FIELD: Final = "correlation_id"


@dataclass(slots=True)
class _Process:
    """What this process works on; one that is forked from here may learn more than its parent knows."""

    attempt: str = ""


_process = _Process()


def work_on(attempt: str) -> None:
    """Note the id of the attempt that this process works on."""
    _process.attempt = attempt


def add_correlation(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id to an event: a processor for structlog."""
    if _process.attempt:
        event.setdefault(FIELD, _process.attempt)
    return event


def learn_correlation(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The same, for the lines of a task's log: who says first which attempt it is tells the process.

    Not for the worker's own lines: it speaks of one attempt after the other, and its children know what it
    knows.
    """
    if not _process.attempt and event.get(FIELD):
        _process.attempt = str(event[FIELD])
    return add_correlation(logger, method, event)


def attempt_in_arguments(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the id that a line of the stock worker names, such as that of the start of an attempt.

    The worker itself runs many attempts; where it speaks of one it gives the id of its task instance to the
    logger, as an id.
    """
    for argument in event.pop("positional_args", None) or ():
        if isinstance(argument, uuid.UUID):
            event.setdefault(FIELD, str(argument))
    return event
