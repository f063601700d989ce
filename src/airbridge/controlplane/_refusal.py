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
        retry_after: seconds after which the same request may be sent again; 0: it is not a matter of time.
        correlation: id of the attempt at a task that it is about, for the audit log.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        audited: str = "",
        retry_after: int = 0,
        correlation: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.audited = audited or reason
        self.retry_after = retry_after
        self.correlation = correlation
