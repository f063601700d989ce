"""Runs of tasks that do nothing, and what Airflow's own rows say about them.

Times are of ``task_instance``: ``queued_dttm`` is the scheduler handing a task to its executor,
``start_date`` the moment the task's process reported that it runs, ``end_date`` its end. All clocks are this
machine's.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airbridge.errors import AirbridgeError, IntegrityError
from bench._database import quoted
from bench._peers import EdgeHost, Peer
from bench._stack import BENCH_DAGS, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench._database import Database
    from bench._stack import Stack

__all__ = ["PACKAGE", "Run", "Runs", "dag_text", "read_run", "work"]

PACKAGE = "bench_dispatch"
"""Where the DAGs are published to."""

_TEMPLATE = BENCH_DAGS / "dispatch.py.txt"
_FILE = "bench_dispatch_{}.py"
# How often a run is asked whether it has ended; one costs a fraction of a millisecond.
_POLL_S = 0.2
# Through the REST API, which costs more; nothing is measured meanwhile.
_SLOW_POLL_S = 1.0
_OVER = ("success", "failed")


def dag_text(peer: Peer, mapped: int, chain: int) -> str:
    """Return the source of a peer's three DAGs."""
    return string.Template(_TEMPLATE.read_text()).substitute(
        peer=peer.name, where=json.dumps(peer.where), mapped=mapped, chain=chain
    )


@dataclass(frozen=True, slots=True)
class Run:
    """The tasks of a run that ended well, in the order of their ends; seconds since the first was queued."""

    queued: tuple[float, ...]
    started: tuple[float, ...]
    ended: tuple[float, ...]

    @property
    def waits(self) -> list[float]:
        """Seconds from queued to running."""
        return [started - queued for started, queued in zip(self.started, self.queued, strict=True)]

    @property
    def tasks_per_minute(self) -> float:
        """Rate from the first queued to the last ended."""
        return 60 * len(self.ended) / self.ended[-1]

    @property
    def seconds_per_hop(self) -> float:
        """The whole run's time for one of its tasks, when each waits for the one before it."""
        return self.ended[-1] / len(self.ended)


def read_run(rows: Iterable[dict[str, str]], expected: int, worker: str) -> Run:
    """Return the run that these rows tell of.

    :param expected: number of tasks
    :param worker: where each of them must have run
    :raises IntegrityError: they are not as many
    :raises AirbridgeError: one failed, or ran elsewhere
    """
    times = []
    for row in rows:
        if row["state"] != "success" or row["hostname"] != worker:
            raise AirbridgeError(
                f"a task is '{row['state']}' on '{row['hostname']}', not 'success' on '{worker}'"
            )
        times.append(
            tuple(datetime.fromisoformat(row[name]) for name in ("end_date", "queued_dttm", "start_date"))
        )
    if len(times) != expected:
        raise IntegrityError(f"the run has {len(times)} tasks, not {expected}")
    times.sort()
    first = min(queued for _, queued, _ in times)
    ended, queued, started = (
        [(each - first).total_seconds() for each in column] for column in zip(*times, strict=True)
    )
    return Run(tuple(queued), tuple(started), tuple(ended))


def work(stack: Stack, tasks: int) -> None:
    """Let the shipped edge host and LocalExecutor do so many tasks each."""
    peers = (
        Peer("edge", "edge host as shipped", edge=EdgeHost()),
        Peer("local", "LocalExecutor", executor="LocalExecutor"),
    )
    for peer in peers:
        stack.put_dag(PACKAGE, _FILE.format(peer.name), dag_text(peer, tasks, 1))
    for peer in peers:
        dag_id = f"bench_mapped_{peer.name}"
        stack.wait_for_dag(dag_id)
        stack.wait_for_success(dag_id, stack.trigger(dag_id), _SLOW_POLL_S)


class Runs:
    """Starts runs and waits for them."""

    def __init__(self, stack: Stack, database: Database, *, mapped: int, chain: int) -> None:
        self._stack = stack
        self._database = database
        self._taken: list[tuple[str, str]] = []
        self._sizes = {"one": 1, "mapped": mapped, "chain": chain}

    def publish(self, peers: Iterable[Peer]) -> None:
        """Publish the DAGs of these peers, and wait until they are there in these sizes."""
        peers = tuple(peers)
        for peer in peers:
            text = dag_text(peer, self._sizes["mapped"], self._sizes["chain"])
            self._stack.put_dag(PACKAGE, _FILE.format(peer.name), text)
        for peer in peers:
            for kind in self._sizes:
                self._stack.wait_for_dag(f"bench_{kind}_{peer.name}")

    def take(self, peer: Peer, kind: str) -> Run:
        """Run one of a peer's DAGs (``one``, ``mapped``, ``chain``) from its trigger to its success."""
        dag_id = f"bench_{kind}_{peer.name}"
        run_id = self._stack.trigger(dag_id)
        self._taken.append((dag_id, run_id))
        this = f"dag_id = {quoted(dag_id)} AND run_id = {quoted(run_id)}"

        def over() -> str | None:
            state = self._database.query(f"SELECT state FROM dag_run WHERE {this}")[0]["state"]
            return state if state in _OVER else None

        state = until(f"run {run_id} of {dag_id} ends", over, every=_POLL_S)
        if state != "success":
            raise AirbridgeError(f"run {run_id} of {dag_id} ended as {state}", fix="make bench ARGS=--keep")
        rows = self._database.query(
            f"SELECT state, hostname, queued_dttm, start_date, end_date FROM task_instance WHERE {this}"
        )
        return read_run(rows, self._sizes[kind], peer.worker)

    def forget(self) -> None:
        """Delete the runs that were taken."""
        for dag_id, run_id in self._taken:
            self._stack.delete_run(dag_id, run_id)
        self._taken.clear()

    def settle(self, peer: Peer) -> None:
        """Wait until no worker has anything more to say about this peer's tasks."""
        busy = (
            f"SELECT count(*) FROM edge_job WHERE queue = {quoted(peer.queue)}"
            " AND state IN ('queued', 'running', 'restarting')"
        )
        until(f"jobs of {peer.name} end", lambda: self._database.number(busy) == 0 or None, every=_POLL_S)

    def wait_for_worker(self, peer: Peer, since: str) -> None:
        """Wait until the peer's edge worker has reported after ``since``, the database's time."""
        alive = (
            f"SELECT count(*) FROM edge_worker WHERE worker_name = {quoted(peer.name)}"
            f" AND state IN ('starting', 'idle', 'running') AND last_update > {quoted(since)}"
        )
        until(f"worker {peer.name} reports", lambda: self._database.number(alive) == 1 or None, every=_POLL_S)

    def now(self) -> str:
        """Return the database's time."""
        return self._database.query("SELECT now() AS now")[0]["now"]
