"""How tasks come to workers: AirBridge against LocalExecutor, CeleryExecutor and the provider's edge worker.

One control plane with all three executors, the same DAGs, as many slots for each peer, one run. Peers take
turns, each round begins with another one, and what belongs to the others is paused meanwhile: it takes no
CPU and asks for nothing. A round of a peer is some single tasks, a chain, and many mapped tasks, over which
CPU and database are counted. The slow ones get fewer rounds.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING, Any

from bench._counters import Counters
from bench._database import watching
from bench._dispatch_hosts import Hosts
from bench._dispatch_numbers import Taken, numbers_of, samples_of
from bench._dispatch_runs import Runs
from bench._progress import say
from bench._shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench._peers import Peer
    from bench._stack import Stack

__all__ = ["COMPOSE", "build", "measure", "turns"]

COMPOSE = "bench/dispatch/compose.yaml"
"""What the control plane has more than the shipped one."""

_IMAGES = ("celery-worker", "redis", "netem")


def build() -> None:
    """Build what the benchmark adds to the shipped images."""
    # lib.sh knows which authorities builds trust on this machine.
    script = f'. scripts/lib.sh; logged bench-build control_compose --file {COMPOSE} --profile "*" build "$@"'
    Shell().run("bash", "-c", script, "bash", *_IMAGES)


def turns(peers: Sequence[Peer], rounds: int, slow_rounds: int) -> Iterator[tuple[int, list[Peer]]]:
    """Yield the number of each round, from 1, and its peers; each round begins with another one."""
    for number in range(rounds):
        shift = number % len(peers)
        yield (
            number + 1,
            [p for p in (*peers[shift:], *peers[:shift]) if number < slow_rounds or not p.slow],
        )


class _Turn:
    """One peer's part of a round."""

    def __init__(self, runs: Runs, hosts: Hosts, counters: Counters, peer: Peer) -> None:
        self._runs = runs
        self._hosts = hosts
        self._counters = counters
        self._peer = peer

    def _one(self) -> float:
        # A worker asks for work at a fixed beat, and rounds have a beat as well: without this pause the
        # same part of the wait would be measured again and again.
        time.sleep(random.uniform(0, self._peer.period_s))
        (wait,) = self._runs.take(self._peer, "one").waits
        return wait

    def wake(self) -> None:
        """Bring the peer's worker back. Its first task after that does not count."""
        since = self._runs.now()
        self._hosts.resume(self._peer)
        if self._peer.edge:
            self._runs.wait_for_worker(self._peer, since)
        self._one()

    def take(self, taken: Taken, singles: int, idle_s: int) -> None:
        """Measure."""
        peer = self._peer
        self._counters.start()
        time.sleep(idle_s)
        taken.idle.append(self._counters.stop())
        waits = [self._one() for _ in range(singles)]
        taken.waits += waits
        chain = self._runs.take(peer, "chain")
        taken.chains.append(chain)
        self._counters.start()
        mapped = self._runs.take(peer, "mapped")
        taken.costs.append(self._counters.stop())
        taken.mapped.append(mapped)
        say(
            "dispatch",
            f"{peer.title}: queued to running {statistics.median(waits):.3f} s, a hop"
            f" {chain.seconds_per_hop:.2f} s, {mapped.tasks_per_minute:.0f} tasks/min",
        )

    def rest(self) -> None:
        """Let the peer's worker finish what it has to say, and leave nothing behind."""
        if self._peer.edge:
            self._runs.settle(self._peer)
        self._hosts.pause(self._peer)
        # Runs of one peer are rows that the scheduler looks at for the next one.
        self._runs.forget()


def measure(
    stack: Stack,
    peers: Sequence[Peer],
    *,
    rounds: int,
    slow_rounds: int,
    singles: int,
    mapped: int,
    chain: int,
    idle: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of these peers.

    :param slow_rounds: rounds of peers that are slow
    :param singles: single tasks a round
    :param mapped: mapped tasks a round
    :param chain: tasks of the chain
    :param idle: seconds without a task a round, to see what is spent anyway
    """
    all_taken = {peer.name: Taken() for peer in peers}
    with watching(stack) as database:
        runs = Runs(stack, database, mapped=mapped, chain=chain)
        started = runs.now()
        hosts = Hosts(stack, peers)
        runs.publish(peers)
        for peer in peers:
            if peer.edge:
                runs.wait_for_worker(peer, started)
        delay = hosts.check_delay()
        try:
            hosts.pause_all()
            for number, taking in turns(peers, rounds, slow_rounds):
                say("dispatch", f"round {number} of {rounds}")
                for peer in taking:
                    turn = _Turn(runs, hosts, Counters(database, hosts.groups(peer)), peer)
                    turn.wake()
                    turn.take(all_taken[peer.name], singles, idle)
                    turn.rest()
        finally:
            hosts.resume_all()
    return {**numbers_of(all_taken), "delay": delay}, samples_of(all_taken)
