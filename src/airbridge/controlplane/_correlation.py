"""One id for each attempt at a task, in every log on its way.

The id is Airflow's own: that of the task instance. Airflow 3 makes a new one for each try
(``TaskInstance.prepare_db_for_next_try``), and keeps it while a task is deferred and comes back. The answer
to each edge request that is about an attempt carries it in a header, which the access logs of gateway and
uplink show, and here each request becomes one structured line.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airbridge.controlplane._asgi import Message, Send

__all__ = ["HEADER", "AccessLog", "Exchange"]

HEADER: Final = b"x-airbridge-correlation-id"

# JSON whatever else the process logs like: what strangers write must not look like lines of ours.
_PROCESSORS: Final = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.JSONRenderer(),
)
# What a stranger may write into a log line: enough to recognise, too little to fill a disk.
_LONGEST: Final = 512
_UNANSWERED: Final = 0
# Attempts that a header names: 37 bytes each, where clients take lines of 8 KB at most.
_MOST_ATTEMPTS: Final = 128
_MS: Final = 1000


class AccessLog:
    """Writes one line for each request."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._log = structlog.wrap_logger(structlog.PrintLogger(stream or sys.stdout), processors=_PROCESSORS)

    def write(self, **fields: object) -> None:
        """Write one line."""
        self._log.info("edge request", logger="airbridge.access", **fields)


class Exchange:
    """One request and its answer.

    Args:
        send: takes the messages of the answer to the server.
        call: method and path, for the log.
        log: ``None``: nobody wants to know.
    """

    def __init__(self, send: Send, call: str, log: AccessLog | None = None) -> None:
        self.worker = ""
        """Who sent it, once that is proved; empty for a task on the control plane's own network."""
        self.correlation = ""
        """Ids of the attempts that it is about, once they are known, with commas; empty: it is about none."""
        self.quiet = False
        """Whether the access log leaves it out."""
        self._send = send
        self._call = call
        self._log = log
        self._began = time.perf_counter()
        self._status = _UNANSWERED

    async def send(self, message: Message) -> None:
        """Send a message of the answer; its start gets the header."""
        if message["type"] == "http.response.start":
            self._status = int(message["status"])
            if self.correlation:
                message = {**message, "headers": [*message["headers"], (HEADER, self.correlation.encode())]}
        await self._send(message)

    def is_about(self, correlation: str) -> None:
        """Say which attempt it is about, to the logs of whatever serves it as well."""
        self.correlation = correlation
        structlog.contextvars.bind_contextvars(correlation_id=correlation)

    def is_about_several(self, correlations: Iterable[str]) -> None:
        """Say which attempts it hands out; those that a header has no room for are named by others."""
        self.is_about(",".join(itertools.islice(correlations, _MOST_ATTEMPTS)))

    def end(self) -> None:
        """Write the line. To be called when the answer is on its way: it must not wait for a log."""
        if self._log is None or (self.quiet and not self.correlation):
            return
        self._log.write(
            worker=self.worker,
            call=self._call[:_LONGEST],
            status=self._status,
            duration_ms=round((time.perf_counter() - self._began) * _MS, 2),
            correlation_id=self.correlation,
        )
