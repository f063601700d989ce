"""The few numbers that are made of samples."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["percentile", "summary"]


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile (1 to 99), linear between the two nearest samples.

    :raises ValueError: there is no sample
    """
    if not 1 <= percent <= 99:
        raise ValueError(f"{percent} is no percentile between 1 and 99")
    if not samples:
        raise ValueError("no sample, no percentile")
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def summary(samples: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return count, least, median, p95 and most, rounded."""
    return {
        "count": len(samples),
        "min": round(min(samples), digits),
        "median": round(statistics.median(samples), digits),
        "p95": round(percentile(samples, 95), digits),
        "max": round(max(samples), digits),
    }
