"""The containers that do the peers' tasks: made as each peer wants them, paused while others are measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bench import _delay
from bench._peers import FAR_MS, PEERS, Peer
from bench._progress import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench._stack import Stack

__all__ = ["Hosts"]

_STOCK = "bench/dispatch/stock.yaml"
_CELERY = "celery-worker"
# What stands for the distance of a far host is none of its work.
_NOT_COUNTED = ("relay", "netem")
# Starting an edge host is mostly waiting.
_STARTING = 3


class Hosts:
    """The containers of the peers: which run, and which rest."""

    def __init__(self, stack: Stack, peers: Sequence[Peer]) -> None:
        self._stack = stack
        self._peers = peers
        self._delay = ""
        if any(peer.edge and peer.edge.far for peer in peers):
            version = stack.shell.environment.get("AIRBRIDGE_VERSION", "0.1.0")
            self._delay = _delay.choose(stack.shell, f"airbridge/bench-netem:{version}")
        with ThreadPoolExecutor(_STARTING) as pool:
            list(pool.map(self._start, peers))
        self._control = stack.containers()
        celery = self._control.pop(_CELERY)
        # Also of those that a stack which was kept has from an earlier run.
        self._workers = {peer.name: stack.containers(peer.name) for peer in PEERS if peer.edge}
        self._workers |= {peer.name: {_CELERY: celery} for peer in PEERS if peer.worker == _CELERY}

    def _start(self, peer: Peer) -> None:
        host = peer.edge
        if host is None:
            return
        overrides, settings = [], {"WORKER_RUNNER": "airbridge"}
        if host.far:
            overrides.append(self._delay)
            settings["BENCH_ROUND_TRIP_MS"] = str(FAR_MS)
            settings["BENCH_GATEWAY_PORT"] = self._stack.shell.environment["AIRBRIDGE_GATEWAY_PORT"]
        if host.poll_s:
            overrides.append(_STOCK)
            settings |= {"WORKER_RUNNER": "stock", "BENCH_POLL_S": str(host.poll_s)}
        self._stack.add_edge(peer.name, peer.queue, overrides, settings)
        say("peer", f"{peer.title} is up")

    def check_delay(self) -> dict[str, Any]:
        """Return what delays a far host, by how much, and what that came to.

        :raises IntegrityError: it is not what was asked for
        """
        edges = [peer for peer in self._peers if peer.edge]
        round_trips = {
            peer.name: _delay.measure_round_trip(self._stack.shell, self._workers[peer.name]["uplink"])
            for peer in edges
        }
        near = next((peer.name for peer in edges if peer.edge and not peer.edge.far), None)
        for peer in edges:
            if near and peer.edge and peer.edge.far:
                _delay.check(round_trips[near], round_trips[peer.name])
        means = {_delay.NETEM: "netem", _delay.RELAY: "relay"}.get(self._delay, "")
        return {"means": means, "added_ms": FAR_MS, "round_trips": round_trips}

    def groups(self, peer: Peer) -> dict[str, dict[str, str]]:
        """Return whose CPU counts; that of the delay is nobody's."""
        workers = self._workers.get(peer.name, {})
        counted = {name: container for name, container in workers.items() if name not in _NOT_COUNTED}
        return {"control_plane": self._control, "workers": counted}

    def pause(self, peer: Peer) -> None:
        """Stop what belongs to a peer, where it is."""
        if containers := self._workers.get(peer.name):
            self._stack.shell.run("docker", "pause", *containers.values())

    def pause_all(self) -> None:
        """Stop what belongs to any peer, measured or not."""
        for peer in PEERS:
            self.pause(peer)

    def resume(self, peer: Peer) -> None:
        """Let what belongs to a peer go on."""
        if containers := self._workers.get(peer.name):
            self._stack.shell.run("docker", "unpause", *containers.values())

    def resume_all(self) -> None:
        """Let everything go on, for whoever looks at a stack that is kept."""
        for containers in filter(None, self._workers.values()):
            self._stack.shell.run("docker", "unpause", *containers.values(), check=False)
