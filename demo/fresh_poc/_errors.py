"""What a service answers when it cannot do its work, and what stops it from starting."""

from __future__ import annotations

__all__ = ["ServiceError", "SettingsError"]


class ServiceError(Exception):
    """An answer that is not 2xx.

    4xx: the same call will fail again. 5xx: a later attempt may succeed.
    """

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
        self.what = what


class SettingsError(Exception):
    """A setting is missing or malformed; the message names it."""
