"""Who is compared with whom."""

from __future__ import annotations

from dataclasses import dataclass

from airbridge.errors import SettingsError

__all__ = ["FAR_MS", "PAIRS", "PEERS", "EdgeHost", "Peer", "chosen"]

FAR_MS = 50
"""Round trip that is added between a host that is far away and the control plane."""


@dataclass(frozen=True, slots=True)
class EdgeHost:
    """An edge host that runs a peer's tasks."""

    poll_s: int | None = None
    """Seconds between two questions of the provider's own worker; ``None``: our runner, which is told."""
    far: bool = False
    """Whether :data:`FAR_MS` lie between it and the control plane."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way that tasks take to a worker."""

    name: str
    title: str
    executor: str = ""
    """Executor of its tasks; empty: that of edge hosts."""
    hostname: str = ""
    """What its tasks must say about where they ran; anything else is no measure of this peer."""
    edge: EdgeHost | None = None
    slow: bool = False
    """Whether its rounds take minutes, so that it gets fewer of them."""

    @property
    def worker(self) -> str:
        """Where its tasks run."""
        return self.hostname or self.name

    @property
    def queue(self) -> str:
        """Queue of its edge host."""
        return f"bench-{self.name}"

    @property
    def where(self) -> dict[str, str]:
        """Arguments of its tasks."""
        return {"queue": self.queue} if self.edge else {"executor": self.executor}

    @property
    def period_s(self) -> float:
        """Longest interval at which it looks for work: trigger times are spread over this much."""
        return float(self.edge.poll_s) if self.edge and self.edge.poll_s else 1.0


PEERS = (
    Peer("local", "LocalExecutor", executor="LocalExecutor", hostname="scheduler"),
    Peer("celery", "CeleryExecutor, Redis", executor="CeleryExecutor", hostname="celery-worker"),
    Peer("airbridge", "AirBridge", edge=EdgeHost()),
    Peer("stock1", "stock edge worker, 1 s", edge=EdgeHost(poll_s=1), slow=True),
    Peer("stock5", "stock edge worker, 5 s", edge=EdgeHost(poll_s=5), slow=True),
    Peer("airbridge-far", f"AirBridge, +{FAR_MS} ms", edge=EdgeHost(far=True)),
    Peer("stock1-far", f"stock edge worker, 1 s, +{FAR_MS} ms", edge=EdgeHost(poll_s=1, far=True), slow=True),
    Peer("stock5-far", f"stock edge worker, 5 s, +{FAR_MS} ms", edge=EdgeHost(poll_s=5, far=True), slow=True),
)
"""In the order in which results show them."""

PAIRS = (
    ("airbridge", "local"),
    ("airbridge", "celery"),
    ("airbridge", "stock1"),
    ("airbridge", "stock5"),
    ("airbridge-far", "stock1-far"),
    ("airbridge-far", "stock5-far"),
    ("airbridge-far", "local"),
)
"""Whose medians are divided by whose."""


def chosen(names: tuple[str, ...]) -> tuple[Peer, ...]:
    """Return the peers of these names, in order; all of them when there is no name.

    :raises SettingsError: nobody has one of the names
    """
    known = [peer.name for peer in PEERS]
    if unknown := set(names).difference(known):
        raise SettingsError(f"no peer is called {', '.join(sorted(unknown))}", fix=f"give {', '.join(known)}")
    return tuple(peer for peer in PEERS if not names or peer.name in names)
