"""The smallest DAG that proves an edge host works: two tasks that say where they ran."""

from __future__ import annotations

import logging
import os
import platform
import socket
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, get_current_context, task

_log = logging.getLogger(__name__)

DOC = """
### edge_sample_dag

`start` and then `finish`, each on the default queue, so on an edge worker that serves it.
Each one logs the host, the worker's name (if it is an edge worker) and the Python it ran on.

```
airflow dags trigger edge_sample_dag
airflow tasks test edge_sample_dag start 2024-01-01      # here and now, needs no edge worker
airflow tasks test edge_sample_dag finish 2024-01-01
```
"""


def _whereabouts() -> dict[str, str]:
    """Host, worker name and Python of the process that calls it."""
    return {
        "host": socket.gethostname(),
        # Set on edge hosts only.
        "worker": os.environ.get("WORKER_NAME", ""),
        "python": platform.python_version(),
    }


@dag(
    dag_id="edge_sample_dag",
    description="Two tasks that show on which edge host they ran",
    schedule=None,
    # Before the date in the smoke test of the doc string.
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["edge_sample", "example"],
    doc_md=DOC,
)
def _edge_sample_dag() -> None:
    @task(multiple_outputs=False)
    def start() -> dict[str, str]:
        here = _whereabouts()
        _log.info("start ran on host %(host)s, worker %(worker)r, Python %(python)s", here)
        return here

    @task(multiple_outputs=False)
    def finish() -> dict[str, Any]:
        # Pulled, not passed: `airflow tasks test` must be able to run this task alone.
        started = get_current_context()["ti"].xcom_pull(task_ids="start")
        here = _whereabouts()
        _log.info("finish ran on host %(host)s, worker %(worker)r, Python %(python)s", here)
        if started is None:
            _log.info("start left no result in this run: finish runs alone")
        else:
            _log.info("start ran on host %(host)s, worker %(worker)r", started)
        return {"started": started, "finished": here}

    start() >> finish()


_edge_sample_dag()
