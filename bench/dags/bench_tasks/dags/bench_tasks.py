"""Tasks that do nothing, so that only their way to a worker is measured. Two DAGs for each peer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from airflow.sdk import dag, task

# Where each peer's tasks run. The benchmark reads this table; see bench/_peers.py.
PEERS: Final[dict[str, dict[str, str]]] = {
    "edge": {"queue": "bench-edge"},
    "local": {"executor": "LocalExecutor"},
    "untuned": {"queue": "bench-untuned"},
}
MAPPED: Final = 50


def _make(peer: str, where: dict[str, Any]) -> None:
    options: dict[str, Any] = {
        "schedule": None,
        "start_date": datetime(2024, 1, 1, tzinfo=UTC),
        "catchup": False,
        "is_paused_upon_creation": False,
        "tags": ["bench"],
    }

    @dag(dag_id=f"bench_one_{peer}", **options)
    def one() -> None:
        @task(do_xcom_push=False, **where)
        def nothing() -> None:
            return

        nothing()

    @dag(dag_id=f"bench_fifty_{peer}", **options)
    def fifty() -> None:
        @task(do_xcom_push=False, **where)
        def nothing(number: int) -> None:
            return

        nothing.expand(number=list(range(MAPPED)))

    one()
    fifty()


for _peer, _where in PEERS.items():
    _make(_peer, _where)
