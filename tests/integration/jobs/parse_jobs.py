"""Runs inside the control-plane image: parses a folder as the DAG processor does, prints one JSON line."""

from __future__ import annotations

import json
import sys

from airflow.models.dagbag import DagBag
from airflow.serialization.serialized_objects import SerializedDAG
from airflow.utils.file import list_py_file_paths


def main() -> None:
    """Print the files that are looked at, import errors, every DAG, and which job modules were imported."""
    before = set(sys.modules)
    bag = DagBag(dag_folder=sys.argv[1], include_examples=False, safe_mode=True, load_op_links=False)
    dags = {}
    for dag_id, dag in bag.dags.items():
        back = SerializedDAG.from_dict(SerializedDAG.to_dict(dag))
        (task,) = dag.tasks
        dags[dag_id] = {
            "file": dag.relative_fileloc,
            "tags": sorted(dag.tags),
            "schedule": back.timetable.summary,
            "timetable": type(back.timetable).__name__,
            "waits_for": sorted(asset.uri for _, asset in back.timetable.asset_condition.iter_assets()),
            "timezone": str(getattr(back.timetable, "_timezone", "")),
            "start_date": str(dag.start_date),
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "dagrun_timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds(),
            "owner": dag.owner,
            "params": sorted(dag.params.dump()),
            "has_failure_callback": dag.has_on_failure_callback,
            "task": {
                "id": task.task_id,
                "retries": task.retries,
                "retry_delay": task.retry_delay.total_seconds(),
                "backoff": task.retry_exponential_backoff,
                "max_retry_delay": task.max_retry_delay and task.max_retry_delay.total_seconds(),
                "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                "queue": task.queue,
                "pool": task.pool,
                "pool_slots": task.pool_slots,
                "priority_weight": task.priority_weight,
                "outlets": [asset.uri for asset in task.outlets],
                "callbacks": [type(callback).__name__ for callback in task.on_failure_callback],
            },
        }
    imported = sorted(set(sys.modules) - before)
    print(
        json.dumps(
            {
                "files": sorted(list_py_file_paths(sys.argv[1], safe_mode=False)),
                "errors": bag.import_errors,
                "dags": dags,
                "imported": [name for name in imported if name.startswith(("orders", "reporting", "probe"))],
            },
            default=str,
        )
    )


main()
