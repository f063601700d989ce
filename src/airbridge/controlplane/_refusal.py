"""A request that is not let through."""

from __future__ import annotations

__all__ = ["Refusal"]


class Refusal(Exception):
    """Why a request is answered here and goes no further.

    Args:
        status: of the answer.
        reason: a stable code; the worker's side knows some of them, the audit log and the metric all.
        message: for a person, and no oracle: a stranger's is the same whatever was wrong.
        audited: what the audit log is told instead of ``reason``, where that is more than outsiders may know.
    """

    def __init__(self, status: int, reason: str, message: str, *, audited: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.audited = audited or reason
