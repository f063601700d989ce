"""What work costs: CPU time of containers, and what the database did for Airflow meanwhile.

CPU is each control group's own clock. Statements are pg_stat_statements' of Airflow's role, without BEGIN and
COMMIT; rows scanned are what sequential scans read and index scans fetched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench._idle import engine_client, look

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench._database import Database

__all__ = ["TABLES", "Cost", "Counters", "per_loop", "per_second", "per_task"]

TABLES = ("task_instance", "edge_job", "edge_worker", "dag_run")
"""Tables that are watched. Others are read by who logs in, by parsers, and by tasks."""

# What dispatch itself reads. Of dag_run most is read by tasks: Airflow looks for rendered fields to delete.
_DISPATCH = ("task_instance", "edge_job")

# Sessions tell others what they scanned once they rest, or every second (PGSTAT_MIN_INTERVAL).
_REPORTED_S = 1.5
_SHOWN_STATEMENTS = 15
_SHOWN_CHARACTERS = 240

_STATEMENTS = "FROM pg_stat_statements WHERE userid = 'airflow'::regrole"
# The scheduler asks this once a loop (DagRun.get_queued_dag_runs_to_set_running), and nobody else does.
_LOOPS = f"""SELECT coalesce(sum(calls), 0) {_STATEMENTS}
AND query LIKE '%num_running%FOR NO KEY UPDATE OF dag_run SKIP LOCKED'"""
_TOTALS = f"SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(total_exec_time), 0) AS ms {_STATEMENTS}"
_TOP = f"""SELECT sum(calls) AS calls, round(sum(total_exec_time)) AS ms, sum(rows) AS rows,
left(regexp_replace(query, '\\s+', ' ', 'g'), {_SHOWN_CHARACTERS}) AS statement {_STATEMENTS}
GROUP BY 4 ORDER BY 1 DESC LIMIT {_SHOWN_STATEMENTS}"""
_SCANNED = f"""SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows
FROM pg_stat_user_tables WHERE relname IN {TABLES}"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of time cost."""

    seconds: float
    cpu_s: Mapping[str, float]
    """By group of containers."""
    queries: float
    database_ms: float
    """Time that Postgres spent on those queries."""
    loops: float
    """Of the scheduler."""
    scanned: Mapping[str, float]
    """Rows of :data:`TABLES`, by table."""
    statements: list[dict[str, str]] = field(default_factory=list)
    """The most frequent ones."""


def per_task(cost: Cost, tasks: int) -> dict[str, float]:
    """Return what one of ``tasks`` cost, all that went on meanwhile included."""
    return {name: value / tasks for name, value in _totals(cost).items()}


def per_second(cost: Cost) -> dict[str, float]:
    """Return what a second cost."""
    return {name: value / cost.seconds for name, value in _totals(cost).items()}


def per_loop(cost: Cost) -> dict[str, float]:
    """Return the rows that were scanned in a loop of the scheduler: by table, and by dispatch."""
    loops = max(cost.loops, 1.0)
    tables = {table: rows / loops for table, rows in cost.scanned.items()}
    return {**tables, "dispatch": sum(tables[table] for table in _DISPATCH)}


def _totals(cost: Cost) -> dict[str, float]:
    return {
        **{f"{group}_cpu_s": seconds for group, seconds in cost.cpu_s.items()},
        "queries": cost.queries,
        "database_ms": cost.database_ms,
        "rows_scanned": sum(cost.scanned[table] for table in _DISPATCH),
    }


class Counters:
    """Counts from :meth:`start` to :meth:`stop`.

    :param groups: containers (name -> id) by group
    """

    def __init__(self, database: Database, groups: Mapping[str, Mapping[str, str]]) -> None:
        self._database = database
        self._groups = groups
        self._began = 0.0
        self._cpu: dict[str, float] = {}
        self._scanned: dict[str, float] = {}

    def _read_cpu(self) -> dict[str, float]:
        with engine_client() as engine:
            return {
                group: sum(look(engine, name, container).cpu_s for name, container in containers.items())
                for group, containers in self._groups.items()
            }

    def _read_scanned(self) -> dict[str, float]:
        time.sleep(_REPORTED_S)
        return {row["relname"]: float(row["rows"]) for row in self._database.query(_SCANNED)}

    def start(self) -> None:
        """Count from here."""
        self._scanned = self._read_scanned()
        self._database.query("SELECT pg_stat_statements_reset()")
        self._cpu = self._read_cpu()
        self._began = time.monotonic()

    def stop(self) -> Cost:
        """Return what was counted, with the second or two that reports of tasks that ended need to arrive."""
        scanned = self._read_scanned()
        seconds = time.monotonic() - self._began
        cpu = self._read_cpu()
        (totals,) = self._database.query(_TOTALS)
        return Cost(
            seconds=seconds,
            cpu_s={group: value - self._cpu[group] for group, value in cpu.items()},
            queries=float(totals["calls"]),
            database_ms=float(totals["ms"]),
            loops=self._database.number(_LOOPS),
            scanned={table: rows - self._scanned[table] for table, rows in scanned.items()},
            statements=self._database.query(_TOP),
        )
