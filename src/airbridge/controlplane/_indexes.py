"""Indexes of ours on Airflow's tables.

In each of its loops the scheduler of Airflow 3.0.4 looks for runs and tasks whose OpenTelemetry span is to be
ended (``airflow/jobs/scheduler_job_runner.py``, ``_end_spans_of_externally_ended_ops``), which are next to
none, and there is no index to find them by: both tables are read from the first row to the last. A partial
index holds just those rows, and costs an update of any other one nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from psycopg2.extensions import connection

__all__ = ["install_indexes"]

_INDEXES: Final = {
    "airbridge_task_instance_span": "task_instance (id) WHERE span_status = 'should_end'",
    "airbridge_dag_run_span": "dag_run (id) WHERE span_status = 'should_end'",
}


def install_indexes(connection: connection) -> None:
    """Make the indexes that are missing, each in a transaction of its own: it keeps writers away."""
    for name, rows in _INDEXES.items():
        with connection, connection.cursor() as cursor:
            # Not IF NOT EXISTS, which locks the table before it looks.
            cursor.execute("SELECT to_regclass(%s)", (name,))
            if cursor.fetchone() == (None,):
                cursor.execute(f"CREATE INDEX {name} ON {rows}")
