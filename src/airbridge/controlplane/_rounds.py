"""When the collector of this container finished its last round: written by it, read by its health check.

Apart from the collector, because a health check every half minute should import next to nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from airbridge.errors import AirbridgeError, UnreachableError

__all__ = ["check_collector", "note_round"]

_OLDEST_ROUND_S: Final = 60.0  # a healthy collector finished a round within that time, or three intervals
_FILE: Final = Path("/tmp/airbridge-collector")  # noqa: S108 - a tmpfs of this container alone


def note_round(interval_s: float, file: Path = _FILE) -> None:
    """Note that a round ended now; the next one is ``interval_s`` away."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{time.monotonic()} {interval_s}\n")
    fresh.replace(file)


def check_collector(file: Path = _FILE) -> str:
    """Return a line about the last round of the collector in this container.

    Raises:
        AirbridgeError: there is none, or it is too old.
    """
    try:
        ended, interval = map(float, file.read_text().split())
    except (OSError, ValueError):
        raise UnreachableError(
            "collector has not finished a round yet", fix="docker compose logs collector"
        ) from None
    age = time.monotonic() - ended  # one clock for every process of this machine
    if age > max(_OLDEST_ROUND_S, 3 * interval):
        raise AirbridgeError(
            f"collector finished its last round {age:.0f} s ago", fix="docker compose logs collector"
        )
    return f"collector: last round {age:.1f} s ago"
