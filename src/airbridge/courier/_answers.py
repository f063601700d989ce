"""What an answer means: is it the control plane's word on this call, or only a sign that it is not there?

An absence has many faces on its way through proxies: no connection, 502 to 504, a 429, the 404 of a gateway
that does not know its api-server, the 401 of one whose database is not back yet. None of them may end a
worker or a task, and none may be taken for the answer that Airflow gives when it knows better, such as "this
task shall not run any more". The latter are JSON with a text or a reason of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VERSION_MISMATCH", "Answer", "Meaning", "is_repeat_of"]

VERSION_MISMATCH: Final = "version_mismatch"

# Reasons of AirBridge's refusals that are about this one call. All others (who the worker is, whether it is
# revoked, rates, versions) are about the worker or the moment, and pass.
_FINAL_REASONS: Final = frozenset(
    {
        "body_invalid",
        "body_too_long",
        "connection_not_enrolled",
        "job_not_yours",
        "name_mismatch",
        "query_invalid",
        "queue_not_allowed",
        "concurrency_not_allowed",
        "state_not_allowed",
        "task_not_yours",
        "task_token_invalid",
        "variable_not_enrolled",
        "xcom_not_yours",
    }
)
# "Not now", whoever says it.
_PASSING: Final = frozenset({408, 425, 429})
# What Starlette says for a route that is not there: an api-server without its plugins, or not yet with them.
_NO_ROUTE: Final = ("Not Found", "Method Not Allowed")  # no set: details may be objects
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_SERVER_ERROR: Final = 500
_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_LONGEST_REASON: Final = 200


class Meaning(Enum):
    """What an answer means."""

    DONE = auto()
    """Taken."""
    NO = auto()
    """Refused for good."""
    TROUBLE = auto()
    """Failed at the control plane, which is there; may go well later."""
    AWAY = auto()
    """No word of the control plane at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, or none at all."""

    status: int
    """0: there was none."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""
    """Why there was none."""

    def _json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def reason(self) -> str:
        """One short text: why this is no success."""
        if not self.status:
            return self.error
        said = self._json()
        detail = said.get("detail", "")
        text = said.get("reason") or (detail if isinstance(detail, str) else json.dumps(detail))
        text = text or self.body[:_LONGEST_REASON].decode(errors="replace").strip()
        return f"HTTP {self.status} {text}"[:_LONGEST_REASON].strip()

    @property
    def is_version_mismatch(self) -> bool:
        """Whether both sides run different releases."""
        said = self._json()
        if said.get("reason") == VERSION_MISMATCH:
            return True
        # The edge API's own words (worker_api/routes/worker.py, _assert_version).
        return self.status == 400 and "Rejecting access" in str(said.get("detail", ""))

    @property
    def is_refusal_of_worker(self) -> bool:
        """Whether it is this host that the control plane does not want, not this call."""
        return self.meaning is Meaning.AWAY and self.status in (_UNAUTHORIZED, _FORBIDDEN)

    @property
    def meaning(self) -> Meaning:
        """What it means for the call that was made."""
        if self.status == 0 or self.status in _PASSING or self.status in _GATEWAY_ERRORS:
            return Meaning.AWAY
        if self.status < 300:
            return Meaning.DONE
        if self.status >= _SERVER_ERROR:
            return Meaning.TROUBLE
        return self._meaning_of_refusal()

    def _meaning_of_refusal(self) -> Meaning:
        said = self._json()
        if reason := said.get("reason"):
            return Meaning.NO if str(reason) in _FINAL_REASONS else Meaning.AWAY
        detail = said.get("detail")
        if not detail or detail in _NO_ROUTE or self.status < 400 or self.is_version_mismatch:
            return Meaning.AWAY  # some proxy's page, a redirect, a route that is not there
        if self.status in (_UNAUTHORIZED, _FORBIDDEN) and "error_id=" in str(detail):
            return Meaning.AWAY  # the edge API could not verify the token that our own middleware made
        return Meaning.NO


def is_repeat_of(body: bytes, answer: Answer) -> bool:
    """Return whether a task's state was refused because the control plane has it already.

    :param body: the report, ``{"state": …}``
    """
    try:
        wanted = json.loads(body)["state"]
        return bool(wanted) and json.loads(answer.body)["detail"]["previous_state"] == wanted
    except (ValueError, TypeError, KeyError):
        return False
