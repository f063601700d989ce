"""Who is compared with whom."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PEERS", "TASKS_MAPPED", "Peer"]

TASKS_MAPPED = 50
"""Instances of the mapped task in ``bench_fifty_<peer>``."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way that tasks take to a worker."""

    name: str
    title: str
    hostname: str
    """What its tasks must say about where they ran; anything else is no measure of this peer."""
    period_s: float
    """Longest interval at which it looks for work: trigger times are spread over this much."""

    @property
    def one(self) -> str:
        """DAG of a single task."""
        return f"bench_one_{self.name}"

    @property
    def fifty(self) -> str:
        """DAG of :data:`TASKS_MAPPED` mapped tasks."""
        return f"bench_fifty_{self.name}"


PEERS = (
    Peer("edge", "edge host as shipped", "shipped", 1.0),
    Peer("local", "LocalExecutor", "scheduler", 1.0),
    Peer("untuned", "untuned edge worker", "untuned", 5.0),
)
"""In the order in which results show them; the first is compared with the others."""
