"""The courier, and what it could not deliver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airbridge.courier_status import read_status
from airbridge.edge.diag._model import Check, Context, Failed
from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from airbridge.courier_status import CourierStatus

__all__ = ["COURIER_CHECKS"]

_NO_COURIER: Final = "start the courier: docker compose -f compose.edge.yaml up -d courier"
_AWAY: Final = (
    "nothing, if the control plane is down: what waits is delivered when it is back; else look at the lines "
    "above this one"
)
_LOST: Final = "see the log of courier for which; a larger COURIER_SPOOL_MB rides out a longer absence"
# Of what it may hold; from here on live logs are close to being dropped.
_NEARLY_FULL: Final = 0.8


def _status(context: Context) -> CourierStatus:
    try:
        return read_status(context.settings.courier_url, context.limits.timeout_s)
    except UnreachableError as error:
        raise Failed(error.what, _NO_COURIER) from None


def _spool(context: Context) -> str:
    status = _status(context)
    if status.away:
        raise Failed(status.line, _AWAY)
    if status.lost or status.waiting_bytes > _NEARLY_FULL * status.limit_bytes:
        raise Failed(status.line, _LOST)
    return status.line


COURIER_CHECKS: Final = (Check("spool", _spool, needs=("settings",)),)
