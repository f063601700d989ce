"""Queued to running, and tasks per minute: the edge host as shipped against its peers, in one stack and run.

Times come from Airflow's own ``task_instance`` rows: ``queued_dttm`` is the scheduler handing a task to its
executor, ``start_date`` the moment the task's process reported that it runs, ``end_date`` its end. All clocks
are this machine's. Peers take turns, so that whatever the machine does meets each of them alike.
"""

from __future__ import annotations

import random
import statistics
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airbridge.errors import AirbridgeError, IntegrityError
from bench._peers import PEERS, TASKS_MAPPED, Peer
from bench._progress import say
from bench._stats import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench._stack import Stack

__all__ = ["UNTUNED", "measure", "ratios", "tasks_per_minute"]

UNTUNED = "untuned"
"""Name of the edge host that runs the stock worker."""

_ROWS = """SELECT state, hostname, queued_dttm, start_date, end_date FROM task_instance
WHERE dag_id = :'dag' AND run_id = :'run'"""

# How often a run is asked for its state; every answer costs the measured machine something.
_POLL_ONE_S = 0.3
_POLL_FIFTY_S = 1.0


def _rows(stack: Stack, peer: Peer, dag_id: str, run_id: str, expected: int) -> list[dict[str, datetime]]:
    """Return the times of a run's task instances, after a check that they are this peer's."""
    rows = stack.query(_ROWS, dag=dag_id, run=run_id)
    if len(rows) != expected:
        raise IntegrityError(f"run {run_id} of {dag_id} has {len(rows)} task instances, not {expected}")
    for row in rows:
        if row["state"] != "success" or row["hostname"] != peer.hostname:
            raise AirbridgeError(
                f"a task of {dag_id} is '{row['state']}' on '{row['hostname']}', "
                f"not 'success' on '{peer.hostname}'"
            )
    return [
        {name: datetime.fromisoformat(row[name]) for name in ("queued_dttm", "start_date", "end_date")}
        for row in rows
    ]


def tasks_per_minute(rows: list[dict[str, datetime]]) -> float:
    """Return the rate from the first task queued to the last task ended."""
    first = min(row["queued_dttm"] for row in rows)
    last = max(row["end_date"] for row in rows)
    return 60 * len(rows) / (last - first).total_seconds()


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """Return the first peer's median divided by each other peer's."""
    first, *others = PEERS
    return {
        f"{first.name}/{other.name}": round(medians[first.name] / medians[other.name], 3) for other in others
    }


def _turns(rounds: int) -> Iterator[tuple[int, tuple[Peer, ...]]]:
    """Yield the number of each round, from 1, and its peers; each round begins with another one."""
    for number in range(rounds):
        shift = number % len(PEERS)
        yield number + 1, PEERS[shift:] + PEERS[:shift]


def _one(stack: Stack, peer: Peer) -> float:
    # A worker asks for work at a fixed beat, and rounds have a beat as well: without this pause the
    # same part of the wait would be measured again and again.
    time.sleep(random.uniform(0, peer.period_s))
    run_id = stack.trigger(peer.one)
    stack.wait_for_success(peer.one, run_id, _POLL_ONE_S)
    (row,) = _rows(stack, peer, peer.one, run_id, 1)
    return (row["start_date"] - row["queued_dttm"]).total_seconds()


def _fifty(stack: Stack, peer: Peer) -> tuple[float, list[float]]:
    """Return tasks per minute, and for each task the seconds from the first queued to its end."""
    run_id = stack.trigger(peer.fifty)
    stack.wait_for_success(peer.fifty, run_id, _POLL_FIFTY_S)
    rows = _rows(stack, peer, peer.fifty, run_id, TASKS_MAPPED)
    first = min(row["queued_dttm"] for row in rows)
    ends = sorted((row["end_date"] - first).total_seconds() for row in rows)
    return tasks_per_minute(rows), ends


def measure(stack: Stack, *, singles: int, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples).

    :param singles: single-task runs of each peer
    :param rounds: runs of the mapped task of each peer
    """
    stack.add_edge(UNTUNED, "bench-untuned")
    stack.make_untuned(UNTUNED)
    for peer in PEERS:
        stack.wait_for_dag(peer.fifty)
        _one(stack, peer)
    say("latency", "one run of each peer done that does not count")

    waits: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    for number, peers in _turns(singles):
        for peer in peers:
            waits[peer.name].append(_one(stack, peer))
        shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in waits.items())
        say("latency", f"single tasks, round {number} of {singles}: {shown}")

    rates: dict[str, list[float]] = {peer.name: [] for peer in PEERS}
    ends: dict[str, list[list[float]]] = {peer.name: [] for peer in PEERS}
    for number, peers in _turns(rounds):
        for peer in peers:
            rate, done = _fifty(stack, peer)
            rates[peer.name].append(rate)
            ends[peer.name].append(done)
            say("throughput", f"{peer.title}, round {number} of {rounds}: {rate:.0f} tasks/min")
    stack.remove_edge(UNTUNED)

    wait_medians = {name: statistics.median(values) for name, values in waits.items()}
    rate_medians = {name: statistics.median(values) for name, values in rates.items()}
    numbers = {
        "queued_to_running_s": {name: summary(values) for name, values in waits.items()},
        "queued_to_running_ratios": ratios(wait_medians),
        "tasks_per_minute": {name: summary(values, digits=1) for name, values in rates.items()},
        "tasks_per_minute_ratios": ratios(rate_medians),
    }
    samples = {
        "queued_to_running_s": {name: [round(v, 4) for v in values] for name, values in waits.items()},
        "tasks_per_minute": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "ended_after_s": {name: [[round(v, 2) for v in run] for run in runs] for name, runs in ends.items()},
    }
    return numbers, samples
