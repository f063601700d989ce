"""What the courier says about itself. Standard library only: health checks ask it every few seconds."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from airbridge.errors import UnreachableError

__all__ = ["STATUS_PATH", "CourierStatus", "read_status"]

STATUS_PATH: Final = "/courier/v1/status"
"""Path at which the courier answers."""

_TIMEOUT_S: Final = 2.0
_BYTES_PER_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CourierStatus:
    """The courier at one moment."""

    away: bool
    """Whether the control plane gives no usable answer."""
    away_s: float
    """Seconds since it went away; 0 while it is there."""
    reason: str
    """Why it counts as away."""
    waiting: int
    """Reports in the spool."""
    waiting_bytes: int
    oldest_s: float
    """Age of the oldest report in the spool; 0 when there is none."""
    delivered: int
    """Reports delivered out of the spool since the courier started."""
    refused: int
    """Reports that the control plane refused for good, and that were dropped, since the courier started."""
    lost: int
    """Reports that were given up since the courier started: too old, or no room in the spool."""
    limit_bytes: int
    """How much the spool may hold."""

    @property
    def line(self) -> str:
        """One line for a person."""
        where = f"away for {self.away_s:.0f} s ({self.reason})" if self.away else "there"
        spool = "spool empty"
        if self.waiting:
            size = self.waiting_bytes / _BYTES_PER_MIB
            spool = (
                f"{self.waiting} reports in the spool ({size:.1f} MiB), the oldest {self.oldest_s:.0f} s old"
            )
        dropped = "".join(
            f", {count} {what}" for what, count in (("refused", self.refused), ("lost", self.lost)) if count
        )
        return f"control plane {where}, {spool}{dropped}"


def read_status(url: str, timeout: float = _TIMEOUT_S) -> CourierStatus:
    """Ask the courier at ``url``, such as ``http://courier:8080``.

    :raises UnreachableError: it does not answer
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("GET", STATUS_PATH)
        response = connection.getresponse()
        body = json.loads(response.read())
        return CourierStatus(**{name: body[name] for name in CourierStatus.__slots__})
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as error:
        raise UnreachableError(
            f"the courier at {url} does not answer: {error or type(error).__name__}",
            fix="start it, and read its log: service courier",
        ) from None
    finally:
        connection.close()
