"""The record of refusals: one structured line and one count each, and of a flood a sum.

What is refused is mostly a mistake or an attack that somebody has to see; a flood of them must neither fill
the log nor push everything else out of it. So of equal refusals (reason, worker, client) a few are written as
they come, and the others as one line with their number.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Audit"]

# JSON whatever else the process logs like: what strangers write must not look like lines of ours.
_PROCESSORS: Final = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.JSONRenderer(),
)
# What a stranger may write into a log line: enough to recognise, too little to fill a disk.
_LONGEST: Final = 512
# Equal refusals that are written as they come, in one window; the rest of the window is counted.
_WRITTEN: Final = 20
_WINDOW_S: Final = 10.0
# Kinds of refusals whose windows are open at once. Beyond it the oldest is summed up early.
_MOST_WINDOWS: Final = 1024

_Kind = tuple[str, str, str]


@dataclass(slots=True)
class _Window:
    began: float
    written: int = 0
    left_out: int = 0


class Audit:
    """Writes down refusals.

    Args:
        registry: where the count is kept.
        door: what refuses, in a word: the count is called ``airbridge_<door>_refusals``.
        clock: seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        door: str = "edge",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._door = door
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: OrderedDict[_Kind, _Window] = OrderedDict()
        self._refusals = Counter(
            f"airbridge_{door}_refusals",
            f"Requests that were refused at the {door} door.",
            ["reason"],
            registry=registry,
        )

    def refused(
        self,
        reason: str,
        *,
        worker: str,
        method: str,
        path: str,
        client: str,
        detail: str,
        correlation_id: str = "",
    ) -> None:
        """Note one refusal. ``worker`` is empty where nobody was proved.

        :param correlation_id: of the attempt at a task that the request was about, where it was about one
        """
        self._refusals.labels(reason).inc()
        self.sum_up()
        with self._lock:
            window = self._windows.setdefault((reason, worker, client), _Window(self._clock()))
            if window.written >= _WRITTEN:
                window.left_out += 1
                return
            window.written += 1
        _write(
            f"{self._door} request refused",
            reason=reason,
            detail=detail,
            worker=worker,
            method=method,
            path=path[:_LONGEST],
            client=client,
            **({"correlation_id": correlation_id} if correlation_id else {}),
        )

    def sum_up(self) -> None:
        """Write the number of what was left out in windows that are over."""
        over: list[tuple[_Kind, _Window]] = []
        with self._lock:
            while self._windows:
                kind, window = next(iter(self._windows.items()))
                if self._clock() - window.began < _WINDOW_S and len(self._windows) <= _MOST_WINDOWS:
                    break
                del self._windows[kind]
                over.append((kind, window))
        for (reason, worker, client), window in over:
            if window.left_out:
                _write(
                    f"{self._door} requests refused, more of the same",
                    reason=reason,
                    worker=worker,
                    client=client,
                    number=window.left_out,
                )

    def metrics(self) -> bytes:
        """Return the counts in Prometheus' text format."""
        self.sum_up()
        return generate_latest(self._registry)


def _write(event: str, **fields: object) -> None:
    log = structlog.wrap_logger(structlog.PrintLogger(sys.stdout), processors=_PROCESSORS)
    log.warning(event, logger="airbridge.audit", **fields)
