"""Health checks that prove a service's job, not that its process exists."""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.request

import psycopg2

from airbridge.controlplane._database import connect, first_line
from airbridge.errors import AirbridgeError, UnreachableError

__all__ = ["check_api_server", "check_heartbeat"]

_JOB_TYPES = {
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
}
# Airflow's own threshold for a scheduler that is alive ([scheduler] scheduler_health_check_threshold).
_OLDEST_HEARTBEAT_S = 30


def check_heartbeat(service: str) -> str:
    """Return a line about the heartbeat that ``service`` wrote from this host.

    Raises:
        AirbridgeError: there is none, or it is older than 30 s.
    """
    job_type = _JOB_TYPES[service]
    host = socket.gethostname()
    connection = connect()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT extract(epoch FROM now() - max(latest_heartbeat)) FROM job"
                " WHERE job_type = %s AND hostname = %s AND state = 'running'",
                (job_type, host),
            )
            age = cursor.fetchone()[0]
    except psycopg2.Error as error:
        raise AirbridgeError(
            f"the heartbeat of {service} cannot be read: {first_line(error)}",
            fix="docker compose logs init",
        ) from error
    finally:
        connection.close()
    if age is None:
        raise AirbridgeError(
            f"{service} on {host} has written no heartbeat yet", fix=f"docker compose logs {service}"
        )
    if age > _OLDEST_HEARTBEAT_S:
        raise AirbridgeError(
            f"{service} on {host} wrote its last heartbeat {age:.0f} s ago",
            fix=f"docker compose logs {service}",
        )
    return f"{service} on {host}: heartbeat {age:.1f} s ago"


def check_api_server() -> str:
    """Return a line about the API of this host, which asked the metadata database to answer.

    Raises:
        AirbridgeError: the API does not answer, or its database does not.
    """
    port = os.environ.get("AIRFLOW__API__PORT", "8080")
    url = f"http://127.0.0.1:{port}/api/v2/monitor/health"
    try:
        with urllib.request.urlopen(url, timeout=8) as response:
            database = json.load(response)["metadatabase"]["status"]
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"the API does not answer: {first_line(error)}", fix="docker compose logs api-server"
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise AirbridgeError(
            f"what answers at {url} is not Airflow's API", fix="docker compose logs api-server"
        ) from error
    if database != "healthy":
        raise AirbridgeError("the API runs without its database", fix="docker compose ps postgres")
    return "api-server: answers, database healthy"
