"""JSON lines on stdout."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["configure", "event"]

_LOGGER = logging.getLogger("fresh_poc")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, event, and the event's own fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(service: str) -> None:
    """Send every event of this process to stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter(service))
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(logging.INFO)
    _LOGGER.propagate = False


def event(name: str, /, *, level: int = logging.INFO, exc_info: bool = False, **fields: object) -> None:
    """Log one event; fields without a value are left out."""
    kept = {key: value for key, value in fields.items() if value not in (None, "")}
    _LOGGER.log(level, name, extra={"fields": kept}, exc_info=exc_info)
