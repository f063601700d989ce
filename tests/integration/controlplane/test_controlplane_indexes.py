"""The indexes of ours are found by what the scheduler asks, in a database that Airflow made."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.integration.identity.conftest import postgres

from airbridge.controlplane._indexes import install_indexes

if TYPE_CHECKING:
    from tests.integration.identity.conftest import Postgres

__all__ = ["postgres"]

# As the scheduler asks (airflow/jobs/scheduler_job_runner.py, _end_spans_of_externally_ended_ops).
_LOOKS = {
    "airbridge_dag_run_span": "SELECT * FROM dag_run WHERE dag_run.span_status = 'should_end'",
    "airbridge_task_instance_span": "SELECT * FROM task_instance JOIN dag_run ON dag_run.dag_id ="
    " task_instance.dag_id AND dag_run.run_id = task_instance.run_id"
    " WHERE task_instance.span_status = 'should_end'",
}


@pytest.mark.parametrize("index", _LOOKS)
def test_look_for_spans_that_are_to_be_ended_reads_no_whole_table(postgres: Postgres, index: str) -> None:
    with closing(postgres.connect()) as connection:
        for _ in range(2):  # each start of the control plane makes them
            install_indexes(connection)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {_LOOKS[index]}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
    assert index in plan, plan
