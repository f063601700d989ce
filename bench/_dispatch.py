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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench import _delay
from bench._counters import Cost, Counters, per_loop, per_second, per_task
from bench._database import watching
from bench._dispatch_runs import Run, Runs
from bench._peers import FAR_MS, PAIRS, PEERS, Peer
from bench._progress import say
from bench._results import Target
from bench._shell import Shell
from bench._stats import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench._stack import Stack

__all__ = ["COMPOSE", "build", "measure", "ratios", "targets", "turns"]

COMPOSE = "bench/dispatch/compose.yaml"
"""What the control plane has more than the shipped one."""

_STOCK = "bench/dispatch/stock.yaml"
_IMAGES = ("celery-worker", "redis", "netem")
_CELERY = "celery-worker"
# What stands for the distance of a far host is none of its work.
_NOT_COUNTED = ("relay", "netem")
# Starting an edge host is mostly waiting.
_STARTING = 3

# What was asked for.
_P50_MORE_S = 0.1
_P95_MORE_S = 0.3
_OF_LOCAL = 0.9
_TIMES_STOCK = 5


@dataclass(slots=True)
class _Taken:
    """Everything that was measured of a peer."""

    waits: list[float] = field(default_factory=list)
    chains: list[Run] = field(default_factory=list)
    mapped: list[Run] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    idle: list[Cost] = field(default_factory=list)


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


def ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Return one peer's median divided by another's, of the pairs that were both measured."""
    return {
        f"{ours}/{other}": round(medians[ours] / medians[other], 3)
        for ours, other in PAIRS
        if ours in medians and other in medians
    }


class _Hosts:
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

    @property
    def delay(self) -> dict[str, Any]:
        """Return what delays a far host, by how much, and what that came to."""
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


class _Turn:
    """One peer's part of a round."""

    def __init__(self, runs: Runs, hosts: _Hosts, counters: Counters, peer: Peer) -> None:
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

    def take(self, taken: _Taken, singles: int, idle_s: int) -> None:
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
    all_taken = {peer.name: _Taken() for peer in peers}
    with watching(stack) as database:
        runs = Runs(stack, database, mapped=mapped, chain=chain)
        started = runs.now()
        hosts = _Hosts(stack, peers)
        runs.publish(peers)
        for peer in peers:
            if peer.edge:
                runs.wait_for_worker(peer, started)
        delay = hosts.delay
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
    return {**_numbers(all_taken), "delay": delay}, _samples(all_taken)


def _medians(rows: Sequence[Mapping[str, float]], digits: int = 3) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), digits) for name in rows[0]}


def _numbers(all_taken: Mapping[str, _Taken]) -> dict[str, Any]:
    waits = {name: summary(taken.waits) for name, taken in all_taken.items()}
    rates = {
        name: summary([run.tasks_per_minute for run in taken.mapped], digits=1)
        for name, taken in all_taken.items()
    }
    hops = {name: summary([run.seconds_per_hop for run in taken.chains]) for name, taken in all_taken.items()}
    costs = {
        name: {
            "per_task": _medians(
                [per_task(cost, len(run.ended)) for cost, run in zip(taken.costs, taken.mapped, strict=True)]
            ),
            "scanned_per_loop": _medians([per_loop(cost) for cost in taken.costs], digits=1),
            "idle_per_second": _medians([per_second(cost) for cost in taken.idle], digits=4),
        }
        for name, taken in all_taken.items()
    }
    return {
        "queued_to_running_s": waits,
        "queued_to_running_ratios": ratios({name: row["median"] for name, row in waits.items()}),
        "tasks_per_minute": rates,
        "tasks_per_minute_ratios": ratios({name: row["median"] for name, row in rates.items()}),
        "seconds_per_hop": hops,
        "seconds_per_hop_ratios": ratios({name: row["median"] for name, row in hops.items()}),
        "costs": costs,
    }


def _samples(all_taken: Mapping[str, _Taken]) -> dict[str, Any]:
    def each(read: Callable[[_Taken], Any]) -> dict[str, Any]:
        return {name: read(taken) for name, taken in all_taken.items()}

    def ends(runs: Sequence[Run]) -> list[list[float]]:
        return [[round(end, 2) for end in run.ended] for run in runs]

    return {
        "queued_to_running_s": each(lambda taken: [round(wait, 4) for wait in taken.waits]),
        "ended_after_s": each(lambda taken: ends(taken.mapped)),
        "chain_ended_after_s": each(lambda taken: ends(taken.chains)),
        "costs": each(lambda taken: [asdict(cost) for cost in taken.costs]),
        "idle": each(lambda taken: [asdict(cost) for cost in taken.idle]),
    }


def targets(numbers: dict[str, Any]) -> tuple[Target, ...]:
    """Return what was asked for beside what came out, as far as both sides were measured."""
    waits, rates, costs = numbers["queued_to_running_s"], numbers["tasks_per_minute"], numbers["costs"]
    if "airbridge" not in waits:
        return ()
    found: list[Target] = []
    ours, rate, cost = waits["airbridge"], rates["airbridge"]["median"], costs["airbridge"]
    if "local" in waits:
        local = waits["local"]
        found += [
            Target(
                f"queued to running, p50: LocalExecutor + {_P50_MORE_S:g} s",
                round(local["median"] + _P50_MORE_S, 3), ours["median"], "s",
            ),
            Target(
                f"queued to running, p95: LocalExecutor + {_P95_MORE_S:g} s",
                round(local["p95"] + _P95_MORE_S, 3), ours["p95"], "s",
            ),
            Target(
                f"throughput: {_OF_LOCAL:g} of LocalExecutor",
                round(_OF_LOCAL * rates["local"]["median"], 1), rate, "tasks/min", "at least",
            ),
        ]  # fmt: skip
    if "celery" in rates:
        found.append(
            Target("throughput: CeleryExecutor", rates["celery"]["median"], rate, "tasks/min", "at least")
        )
    if "airbridge-far" in rates and "stock5-far" in rates:
        found.append(
            Target(
                f"throughput at {FAR_MS} ms: {_TIMES_STOCK} times the stock worker",
                round(_TIMES_STOCK * rates["stock5-far"]["median"], 1),
                rates["airbridge-far"]["median"],
                "tasks/min",
                "at least",
            )
        )
    for stock, title in (("stock5", "the stock worker"), ("stock1", "the stock worker at 1 s")):
        if stock in costs:
            found += [
                Target(
                    f"queries per task: {title}",
                    costs[stock]["per_task"]["queries"], cost["per_task"]["queries"], "",
                ),
                Target(
                    f"rows scanned per scheduler loop: {title}",
                    costs[stock]["scanned_per_loop"]["all"], cost["scanned_per_loop"]["all"], "",
                ),
            ]  # fmt: skip
    return tuple(found)
