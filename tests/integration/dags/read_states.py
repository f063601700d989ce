"""Runs inside the control-plane image: prints a run's id, and its tasks' states and attempts, as JSON."""

from __future__ import annotations

import json
import sys
from datetime import datetime

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session


def main() -> None:
    """Read them from the database; mapped tasks are one entry each."""
    dag_id, logical_date = sys.argv[1:]
    with create_session() as session:
        run = (
            session.query(DagRun)
            .filter(DagRun.dag_id == dag_id, DagRun.logical_date == datetime.fromisoformat(logical_date))
            .one()
        )
        tasks = [[ti.task_id, str(ti.state), ti.try_number] for ti in run.task_instances]
        print(json.dumps({"run_id": run.run_id, "state": str(run.state), "tasks": tasks}))


main()
