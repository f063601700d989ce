"""Airflow's configuration on an edge host, as environment variables of the worker process.

Some are AirBridge's to decide (where calls go, who signs them): those overwrite whatever is set. The
rest are tuning, and an ``AIRFLOW__...`` variable that the operator set stays. What is the same on
every edge host stands in the image's ``airflow.cfg``.

The token is kept out of the environment: every task inherits it, and one ``env`` in a task would
put it into a log. Airflow reads it once, from a file of mode 0600, through its own ``..._CMD`` way
of secrets. Tasks run as the worker's own user, so a hostile one can still read that file: a worker's
token is only as safe as the tasks that the worker is given, which is why each worker gets its own
and none of them opens anything but that worker's calls.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from airbridge.edge.token import VALID_FOR_SECONDS
from airbridge.token_source import TOKEN, TOKEN_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.edge.settings import EdgeSettings

__all__ = ["S3_CONN_ID", "airflow_environment", "pid_file", "write_private_token"]

S3_CONN_ID: Final = "airbridge_s3"
"""Airflow connection of the log bucket. One that is only in the database kills each task at its start."""

_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - memory only, so the token reaches no disk; the file is 0600

# A call that fails is tried again after 1 s, then up to 15 s later (random, 8 s on average). While the
# control plane is away the courier acknowledges what needs no answer, so that this is for the rest: questions
# of tasks, and a courier that is being started again.
_RETRY_WAIT_MIN_S: Final = 1.0
_RETRY_WAIT_MAX_S: Final = 15.0
# So many more than the limit takes on average that waiting for less than the limit is out of the question.
_RETRY_MARGIN: Final = 1.5
_RETRIES_AT_LEAST: Final = 20

# Each failed heartbeat of a task has gone through all retries above by itself.
_FAILED_HEARTBEATS: Final = "30"

# How long a task that must end gets between SIGTERM and SIGKILL once the drain timeout is over.
_KILL_GRACE_S: Final = "30"

# What must not reach the worker: its token in the clear, and any key or secret of another deployment.
_REMOVED: Final = (
    TOKEN,
    TOKEN_FILE,
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__API_AUTH__JWT_SECRET_SECRET",
    "AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH",
    "AIRFLOW__API_AUTH__JWT_ALGORITHM",
)


def _retries(limit_s: float) -> str:
    """Return how many tries outlast an absence of ``limit_s`` seconds."""
    average = (_RETRY_WAIT_MIN_S + _RETRY_WAIT_MAX_S) / 2
    return str(_RETRIES_AT_LEAST + int(_RETRY_MARGIN * limit_s / average))


def write_private_token(token: str, worker: str) -> Path:
    """Write the token where only this user reads it, in memory where that exists, and return the path."""
    folder = _MEMORY_DIR if os.access(_MEMORY_DIR, os.W_OK) else Path(tempfile.gettempdir())
    path = folder / f"airbridge-{os.getuid()}-{worker}.token"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return path


def _s3_connection(settings: EdgeSettings) -> str:
    """Return the connection of the log bucket: through the uplink, and without what signs requests.

    The environment is every task's; whoever sends logs has the secret from elsewhere
    (:mod:`airbridge.edge._log_hook`).
    """
    return json.dumps(
        {
            "conn_type": "aws",
            # Without any key boto3 goes looking for a cloud's metadata service.
            "login": settings.worker_name,
            "password": "not-in-here",
            "extra": {
                "endpoint_url": settings.s3_endpoint_url,
                "region_name": settings.aws_default_region,
                "config_kwargs": {
                    "s3": {"addressing_style": "path"},
                    "connect_timeout": 5,
                    # Short: a log that cannot be sent when its task ends is sent later (_late_logs), and
                    # until this gives up the task has its slot.
                    "read_timeout": 20,
                    "retries": {"mode": "standard", "max_attempts": 2},
                },
            },
        }
    )


def _no_proxy(environ: Mapping[str, str], settings: EdgeSettings) -> str:
    """Return NO_PROXY with courier and uplink in it: they are neighbours, whatever proxy the host uses."""
    known = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    hosts = [part.strip() for part in known.split(",") if part.strip()]
    for url in (settings.courier_url, settings.uplink_url, settings.s3_endpoint_url):
        host = urlsplit(url).hostname
        if host and host not in hosts:
            hosts.append(host)
    return ",".join(hosts)


def airflow_environment(
    settings: EdgeSettings, environ: Mapping[str, str], token_file: Path
) -> dict[str, str]:
    """Return the whole environment of the worker process.

    :param environ: what this process was started with
    :param token_file: file that holds the token and nothing else
    """
    no_proxy = _no_proxy(environ, settings)
    retries = _retries(settings.edge_absence_limit)
    decided = {
        "AIRFLOW__CORE__EXECUTOR": "airflow.providers.edge3.executors.EdgeExecutor,LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.courier_url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # urljoin() drops the last segment of this address, so it has one to drop.
        "AIRFLOW__EDGE__API_URL": f"{settings.courier_url}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": str(settings.edge_heartbeat_interval),
        "AIRFLOW__EDGE__DRAIN_TIMEOUT_SEC": str(settings.worker_drain_timeout),
        "AIRFLOW__EDGE__EXTENDED_SYSTEM_INFO_FUNCTION": "airbridge.edge.sysinfo.report",
        "AIRFLOW__API_AUTH__JWT_SECRET_CMD": shlex.join(["cat", str(token_file)]),
        "AIRFLOW__API_AUTH__JWT_ISSUER": settings.worker_name,
        # The stock worker makes its tokens valid for exactly this long.
        "AIRFLOW__API_AUTH__JWT_LEEWAY": str(VALID_FOR_SECONDS),
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": settings.task_logs_url,
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": S3_CONN_ID,
        f"AIRFLOW_CONN_{S3_CONN_ID.upper()}": _s3_connection(settings),
        "COURIER_URL": settings.courier_url,
        "DAG_STORE": str(settings.dag_store),
        "EDGE_STATE_DIR": str(settings.edge_state_dir),
        "EDGE_MIN_FREE_DISK_MB": str(settings.edge_min_free_disk_mb),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    tuning = {
        # Not on the volume: Airflow writes its defaults there once, and an older release's must not rule.
        "AIRFLOW_HOME": str(Path(tempfile.gettempdir()) / "airflow"),
        # Sends task logs to S3, and knows which may then go from this disk.
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "airbridge.edge.task_logs.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__DELETE_LOCAL_LOGS": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [{"name": "airbridge", "classpath": "airbridge.bundle.AirbridgeDagBundle", "kwargs": {}}]
        ),
        "AIRFLOW__EDGE__DRAIN_KILL_GRACE_SEC": _KILL_GRACE_S,
        # A full disk stops new tasks, and room lets them in again (airbridge.edge.sysinfo).
        "AIRFLOW__EDGE__AUTOMATIC_MAINTENANCE_ON": "error",
        "AIRFLOW__EDGE__AUTOMATIC_MAINTENANCE_EXIT": "info",
        "AIRFLOW__EDGE__API_RETRIES": retries,
        "AIRFLOW__EDGE__API_RETRY_WAIT_MIN": str(_RETRY_WAIT_MIN_S),
        "AIRFLOW__EDGE__API_RETRY_WAIT_MAX": str(_RETRY_WAIT_MAX_S),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": retries,
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN": str(_RETRY_WAIT_MIN_S),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": str(_RETRY_WAIT_MAX_S),
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": _FAILED_HEARTBEATS,
    }
    kept = {name: value for name, value in environ.items() if name not in _REMOVED}
    return tuning | kept | decided


def pid_file(environ: Mapping[str, str]) -> Path:
    """Return where the stock worker writes its pid (``airflow.utils.cli.setup_locations``)."""
    return Path(environ["AIRFLOW_HOME"]) / "airflow-edge-worker.pid"
