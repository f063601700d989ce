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
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._refusals = Counter(
            "airbridge_edge_refusals",
            "Requests of edge hosts that were refused.",
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
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stdout), processors=_PROCESSORS)
        log.warning(
            "edge request refused",
            logger="airbridge.audit",
            reason=reason,
            detail=detail,
            worker=worker,
            method=method,
            path=path[:_LONGEST],
            client=client,
            **({"correlation_id": correlation_id} if correlation_id else {}),
        )

    def metrics(self) -> bytes:
        """Return the counts in Prometheus' text format."""
        return generate_latest(self._registry)
