"""Pass after pass, until the process is told to stop."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Final

import structlog

from airbridge.errors import AirbridgeError
from airbridge.jobs._releases import Outcome
from airbridge.jobs._report import summary_of
from airbridge.jobs._status import note_success

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airbridge.jobs._pass import PassResult

__all__ = ["watch"]

_RETRY_SECONDS: Final = 10.0
"""After a pass that failed: S3 may be back long before the next one is due."""

_log = structlog.get_logger("airbridge.jobs")


def watch(one_pass: Callable[[], PassResult], interval: float, status_file: Path) -> None:
    """Run ``one_pass`` every ``interval`` seconds; log what it did, one JSON object a line.

    A pass that fails is logged and tried again soon. Returns on SIGTERM or SIGINT, between two passes.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _log.info("job sync starts", interval_s=interval)
    told: set[str] = set()
    while not stop.is_set():
        wait = interval
        try:
            result = one_pass()
        except AirbridgeError as error:
            _log.error("pass failed", what=error.what, fix=error.fix)
            wait = min(interval, _RETRY_SECONDS)
        else:
            told = _tell(result, told)
            note_success(status_file, interval, summary_of(result))
        stop.wait(wait)
    _log.info("job sync stops")


def _tell(result: PassResult, told: set[str]) -> set[str]:
    """Log what changed, and each problem once; return the problems that there are now."""
    for outcome in result.releases:
        if outcome.outcome in (Outcome.PUBLISHED, Outcome.EMPTIED):
            _log.info(str(outcome.outcome), package=outcome.package, release=outcome.release)
    if result.folder is not None:
        for path in result.folder.written:
            _log.info("written", path=path)
        for path in result.folder.removed:
            _log.info("removed", path=path)
    problems = [str(problem) for problem in result.problems]
    problems += [
        f"{outcome.package}: {outcome.why}"
        for outcome in result.releases
        if outcome.outcome in (Outcome.REFUSED, Outcome.HELD)
    ]
    if result.folder is not None:
        problems += [f"{path}: {why} | fix: move it away" for path, why in result.folder.kept]
    for problem in problems:
        if problem not in told:
            _log.warning("problem", what=problem)
    for problem in sorted(told - set(problems)):
        _log.info("problem solved", what=problem)
    _log.info("pass done", **{name.replace(" ", "_"): count for name, count in summary_of(result).items()})
    return set(problems)
