"""Keeps the gateway's questions about S3 out of the api-server's access log.

Each edge host asks S3 about once a second, and the gateway logs every request itself. What is refused is in
the audit log as well; what is granted is no news.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["hide_granted_questions"]

_LOGGER: Final = "uvicorn.access"
_QUESTION: Final = "/airbridge/v1/s3-auth"
_OK: Final = 200


class _Filter(logging.Filter):
    """Drops ``client, method, path, version, status`` of questions that were answered with yes."""

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (_, _, str(path), _, int(status)):
                return not (status == _OK and path.startswith(_QUESTION))
        return True


def hide_granted_questions() -> None:
    """Start doing so in this process."""
    logging.getLogger(_LOGGER).addFilter(_Filter())
