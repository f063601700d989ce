"""Ask the metadata database which trees of the DAG store are needed, and must stay wherever they are."""

from __future__ import annotations

from typing import Any, Final

import psycopg2

from airbridge.controlplane._database import first_line
from airbridge.errors import AirbridgeError
from airbridge.sync.store import is_tree_hash

__all__ = ["needed_trees"]

_BUNDLE: Final = "airbridge"  # its name in [dag_processor] dag_bundle_config_list

# The states of airflow.utils.state.State.unfinished, without "not scheduled yet": such a task instance of a
# run that has ended never starts, and all of a run that has not are covered by the run.
_UNFINISHED: Final = (
    *("scheduled", "queued", "running", "restarting"),
    *("up_for_retry", "up_for_reschedule", "deferred"),
)

# What runs now was started with the version of its run; a callback for it may use that of its own DAG
# version. What starts next gets the version of its DAG, which is an old one for as long as the DAG's file
# cannot be parsed. What the DAG processor looks at is next in line.
_QUERY: Final = """
SELECT version FROM dag_bundle WHERE name = %(bundle)s
UNION
SELECT bundle_version FROM dag WHERE bundle_name = %(bundle)s AND is_stale IS NOT TRUE
UNION
SELECT dag_run.bundle_version FROM dag_run JOIN dag USING (dag_id)
 WHERE dag.bundle_name = %(bundle)s AND dag_run.state IN ('queued', 'running')
UNION
SELECT dag_run.bundle_version FROM task_instance
  JOIN dag_run USING (dag_id, run_id) JOIN dag USING (dag_id)
 WHERE dag.bundle_name = %(bundle)s AND task_instance.state IN %(unfinished)s
UNION
SELECT dag_version.bundle_version FROM task_instance
  JOIN dag_version ON dag_version.id = task_instance.dag_version_id
 WHERE dag_version.bundle_name = %(bundle)s AND task_instance.state IN %(unfinished)s
"""


def needed_trees(connection: Any) -> frozenset[str]:
    """Return the trees that unfinished DAG runs started with, and those that new ones will.

    Raises:
        AirbridgeError: the database refused the question.
    """
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(_QUERY, {"bundle": _BUNDLE, "unfinished": _UNFINISHED})
            return frozenset(version for (version,) in cursor.fetchall() if version and is_tree_hash(version))
    except psycopg2.Error as error:
        raise AirbridgeError(
            f"the trees that DAG runs need cannot be looked up: {first_line(error)}",
            fix="docker compose logs init postgres",
        ) from error
