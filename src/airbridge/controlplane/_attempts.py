"""What the control plane knows of an attempt at a task: its name, its times, its log in S3.

Printed as one JSON document for ``make trace``, which puts the containers' logs beside it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import boto3
import psycopg2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from airbridge.controlplane._database import first_line
from airbridge.errors import AirbridgeError, RefusedError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["attempts"]

_URI: Final = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_NOT_MAPPED: Final = -1

# The present try of each task instance, and the earlier ones.
_QUERY: Final = """
SELECT id, dag_id, run_id, task_id, map_index, try_number, state, queued_dttm, start_date, end_date, hostname
  FROM task_instance WHERE {where}
UNION ALL
SELECT task_instance_id, dag_id, run_id, task_id, map_index, try_number, state, queued_dttm, start_date,
       end_date, hostname
  FROM task_instance_history WHERE {past}
ORDER BY try_number
"""
_COLUMNS: Final = (
    *("id", "dag_id", "run_id", "task_id", "map_index", "try_number"),
    *("state", "queued", "started", "ended", "host"),
)


def attempts(asked: str, environ: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """Return the attempts that ``asked`` names, each with the lines of its log.

    :param asked: a correlation id, or ``DAG/RUN/TASK[/MAP INDEX]`` for all tries of a task
    :raises RefusedError: there is none
    """
    found = _look_up(environ.get(_URI, ""), *_condition(asked))
    if not found:
        raise RefusedError(f"no attempt at a task is called '{asked}'", fix="DAG/RUN/TASK names one as well")
    for attempt in found:
        attempt["log"] = _log_lines(attempt, environ)
    return found


def _condition(asked: str) -> tuple[str, str, tuple[object, ...]]:
    try:
        return "id = %s", "task_instance_id = %s", (str(UUID(asked)),)
    except ValueError:
        pass
    parts = asked.split("/")
    if len(parts) not in (3, 4) or not all(parts) or not parts[3:] == [p for p in parts[3:] if p.isdecimal()]:
        raise SettingsError(
            f"'{asked}' names no attempt at a task",
            fix="give its correlation id, or DAG/RUN/TASK[/MAP INDEX]",
        )
    where = "dag_id = %s AND run_id = %s AND task_id = %s AND map_index = %s"
    return where, where, (*parts[:3], int(parts[3]) if parts[3:] else _NOT_MAPPED)


def _look_up(uri: str, where: str, past: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
    dsn = uri.replace("postgresql+psycopg2://", "postgresql://", 1)
    try:
        with psycopg2.connect(dsn, connect_timeout=3) as connection, connection.cursor() as cursor:
            cursor.execute(_QUERY.format(where=where, past=past), (*values, *values))
            rows = cursor.fetchall()
    except psycopg2.Error as error:
        raise UnreachableError(
            f"Postgres cannot be asked: {first_line(error)}", fix="docker compose ps postgres"
        ) from error
    return [
        {
            name: value.isoformat() if hasattr(value, "isoformat") else value
            for name, value in zip(_COLUMNS, row, strict=True)
        }
        for row in rows
    ]


def _log_key(attempt: Mapping[str, Any], environment: str) -> str:
    """As ``[logging] log_filename_template`` of Airflow 3.0.4 has it."""
    mapped = "" if attempt["map_index"] == _NOT_MAPPED else f"map_index={attempt['map_index']}/"
    return (
        f"{environment}/task-logs/dag_id={attempt['dag_id']}/run_id={attempt['run_id']}/"
        f"task_id={attempt['task_id']}/{mapped}attempt={attempt['try_number']}.log"
    )


def _log_lines(attempt: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """Return the log as S3 has it; none while the task runs."""
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environ.get("S3_ENDPOINT_URL") or None,
            config=Config(s3={"addressing_style": "path"}),
        )
        key = _log_key(attempt, environ.get("ENVIRONMENT") or "dev")
        answer = client.get_object(Bucket=environ.get("LOG_BUCKET") or "airbridge-logs", Key=key)
        text: str = answer["Body"].read().decode(errors="replace")
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            return []
        raise AirbridgeError(f"the task's log cannot be read: {error}", fix="make status") from error
    except BotoCoreError as error:
        raise UnreachableError(f"S3 cannot be asked: {error}", fix="make status") from error
    return text.splitlines()
