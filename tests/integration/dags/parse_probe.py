"""Runs inside the control-plane image: parses a folder as the dag-processor does and prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

from airflow.models.dagbag import DagBag
from airflow.serialization.serialized_objects import SerializedDAG


def main() -> None:
    """Print import errors, seconds per file, and every DAG as it is and as it is serialized."""
    began = time.monotonic()
    bag = DagBag(dag_folder=sys.argv[1], include_examples=False, safe_mode=True, load_op_links=False)
    seconds = time.monotonic() - began
    dags = {}
    for dag_id, dag in bag.dags.items():
        serialized = SerializedDAG.to_dict(dag)
        dags[dag_id] = {
            "file": dag.relative_fileloc,
            "schedule": dag.schedule,
            "max_active_runs": dag.max_active_runs,
            "catchup": dag.catchup,
            "doc": bool(dag.doc_md),
            "tags": sorted(dag.tags),
            "params": dag.params.dump(),
            "serialized": serialized,
            # What the scheduler makes of it.
            "scheduled_tasks": sorted(SerializedDAG.from_dict(serialized).task_ids),
            "tasks": {
                task.task_id: {
                    "upstream": sorted(task.upstream_task_ids),
                    "queue": task.queue,
                    "executor": task.executor,
                    "pool": task.pool,
                    "slots": task.pool_slots,
                    "retries": task.retries,
                    "retry_delay": task.retry_delay.total_seconds(),
                    "backoff": task.retry_exponential_backoff,
                    "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                    "trigger_rule": str(task.trigger_rule),
                    "mapped": task.is_mapped,
                }
                for task in dag.tasks
            },
        }
    print(json.dumps({"errors": bag.import_errors, "seconds": seconds, "dags": dags}, default=str))


main()
