"""The record of refusals: one structured line and one count each."""

from __future__ import annotations

import sys
from typing import Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

__all__ = ["Audit"]

# JSON whatever else the process logs like: what strangers write must not look like lines of ours.
_PROCESSORS: Final = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.JSONRenderer(),
)
# What a stranger may write into a log line: enough to recognise, too little to fill a disk.
_LONGEST: Final = 512


class Audit:
    """Writes down refusals.

    Args:
        registry: where the count is kept.
        door: what refuses, in a word: the count is called ``airbridge_<door>_refusals``.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, door: str = "edge") -> None:
        self._registry = registry
        self._door = door
        self._refusals = Counter(
            f"airbridge_{door}_refusals",
            f"Requests that were refused at the {door} door.",
            ["reason"],
            registry=registry,
        )

    def refused(self, reason: str, *, worker: str, method: str, path: str, client: str, detail: str) -> None:
        """Note one refusal. ``worker`` is empty where nobody was proved."""
        self._refusals.labels(reason).inc()
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stdout), processors=_PROCESSORS)
        log.warning(
            f"{self._door} request refused",
            logger="airbridge.audit",
            reason=reason,
            detail=detail,
            worker=worker,
            method=method,
            path=path[:_LONGEST],
            client=client,
        )

    def metrics(self) -> bytes:
        """Return the counts in Prometheus' text format."""
        return generate_latest(self._registry)
