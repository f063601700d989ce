"""Keeps the requests that the edge door logs by itself out of the api-server's access log.

Each of them has a structured line that says more (see ``_correlation``), and the gateway logs it as well.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["hide_edge_requests"]

_LOGGER: Final = "uvicorn.access"
_LOGGED_ELSEWHERE: Final = ("/edge_worker/", "/airbridge/", "/execution/")


class _Filter(logging.Filter):
    """Drops ``client, method, path, version, status`` of requests that have a line of their own."""

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (_, _, str(path), _, int()):
                return not path.startswith(_LOGGED_ELSEWHERE)
        return True


def hide_edge_requests() -> None:
    """Start doing so in this process."""
    logging.getLogger(_LOGGER).addFilter(_Filter())
