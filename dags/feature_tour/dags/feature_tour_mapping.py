"""Mapped tasks, XCom, and a task of the control plane's LocalExecutor beside edge tasks."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, dag, get_current_context, task

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)

NUMBERS = (1, 2, 3, 4, 5, 6)

DOC = f"""
### feature_tour_mapping

`numbers` (edge) → `square`, mapped {len(NUMBERS)} times (edge) → `total` (edge), and beside it
`on_control_plane` (`executor="LocalExecutor"`, so it runs in the scheduler's container) → `verify` (edge).

`verify` fails unless every square and the total are right, and unless no edge task ran on the host of
`on_control_plane`. Parameter `expect_two_hosts` turns the last check off where one process runs everything:

```
airflow dags test feature_tour_mapping --conf '{{"expect_two_hosts": false}}'
```
"""


@dag(
    dag_id="feature_tour_mapping",
    description="Mapped tasks and XCom on the edge, one task on the control plane",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "expect_two_hosts": Param(
            True,
            type="boolean",
            title="Expect two hosts",
            description="Fail when an edge task ran on the host of the local-executor task",
        ),
    },
    tags=["feature_tour", "example"],
    doc_md=DOC,
)
def _feature_tour_mapping() -> None:
    @task
    def numbers() -> list[int]:
        return list(NUMBERS)

    @task(multiple_outputs=False)
    def square(number: int) -> dict[str, Any]:
        host = socket.gethostname()
        _log.info("%d squared on host %s", number, host)
        return {"number": number, "square": number * number, "host": host}

    @task
    def total(squares: Iterable[dict[str, Any]]) -> int:
        return sum(item["square"] for item in squares)

    @task(executor="LocalExecutor")
    def on_control_plane() -> str:
        host = socket.gethostname()
        _log.info("this task needs the control plane: host %s", host)
        return host

    @task(multiple_outputs=False)
    def verify(
        squares: Iterable[dict[str, Any]], squares_total: int, control_plane_host: str
    ) -> dict[str, Any]:
        done = list(squares)
        got = {item["number"]: item["square"] for item in done}
        expected = {number: number * number for number in NUMBERS}
        if got != expected:
            raise ValueError(f"squares are {got}, expected {expected}")
        if squares_total != sum(expected.values()):
            raise ValueError(f"the total is {squares_total}, expected {sum(expected.values())}")
        edge_hosts = sorted({socket.gethostname(), *(item["host"] for item in done)})
        _log.info("edge hosts %s, control plane host %s", edge_hosts, control_plane_host)
        if get_current_context()["params"]["expect_two_hosts"] and control_plane_host in edge_hosts:
            raise ValueError(f"host {control_plane_host} ran both the local-executor task and edge tasks")
        return {"total": squares_total, "edge_hosts": edge_hosts, "control_plane_host": control_plane_host}

    squares = square.expand(number=numbers())
    verify(squares, total(squares), on_control_plane())


_feature_tour_mapping()
