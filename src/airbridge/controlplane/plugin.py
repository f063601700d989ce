"""The Airflow plugin: loaded by every Airflow process, active in the api-server only.

Extension points of Airflow 3.0.4: ``fastapi_root_middlewares`` and ``fastapi_apps``
(airflow/plugins_manager.py, ``initialize_fastapi_plugins``).
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow.plugins_manager import AirflowPlugin
from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbridge.audit import Audit
    from airbridge.controlplane._edge_middleware import EdgeGuard
    from airbridge.controlplane._heartbeats import Heartbeat, HeartbeatAnswer
    from airbridge.dispatch.queue import ClaimedJob

__all__ = ["AirbridgePlugin"]

# Idle connections to the database that are kept: as many as work at once, in the threads of checks (8), of
# what strangers cause (2) and of claims (4). One more would be opened anew for each call of a burst.
_CONNECTIONS: Final = 14

# Where compose.yaml mounts the client CA, in this process and in init only.
_ISSUING: Final = Path("/secrets/issuing")

# The same test as the edge provider's own plugin, which mounts its API in this process only.
_IN_API_SERVER = sys.argv[1:2] == ["api-server"]


def _middleware() -> dict[str, Any]:
    from airbridge.controlplane._access_log import hide_edge_requests
    from airbridge.controlplane._correlation import AccessLog
    from airbridge.controlplane._edge_middleware import EdgeMiddleware

    hide_edge_requests()
    return {
        "name": "AirBridge edge door",
        "middleware": EdgeMiddleware,
        "kwargs": {"guard": _guard(), "audit": _audit(), "accesses": AccessLog()},
    }


@cache
def _audit() -> Audit:
    from airbridge.audit import Audit

    return Audit(CollectorRegistry())


def _guard() -> EdgeGuard | None:
    """Return what requests are checked with; ``None`` where secrets are missing."""
    from airflow.configuration import conf

    from airbridge.controlplane._client_certificates import ClientCertificates
    from airbridge.controlplane._dispatch import Dispatch
    from airbridge.controlplane._edge_middleware import EdgeGuard
    from airbridge.controlplane._heartbeats import Heartbeats
    from airbridge.controlplane._limits import LimitSettings
    from airbridge.identity.database import Database
    from airbridge.identity.jobs import Jobs
    from airbridge.identity.store import Cipher, WorkerStore

    internal = conf.get("api_auth", "jwt_secret", fallback="")
    keys = conf.get("core", "fernet_key", fallback="")
    uri = conf.get("database", "sql_alchemy_conn", fallback="")
    if not internal or not keys or not uri.startswith("postgresql"):
        return None
    database = Database.at(uri, kept=_CONNECTIONS)
    return EdgeGuard(
        WorkerStore(database, Cipher(keys)),
        Jobs(database),
        internal,
        Dispatch(database, _count_start),
        ClientCertificates.of(os.environ, _ISSUING),
        LimitSettings.of(os.environ),
        Heartbeats(_serve_heartbeats),
    )


def _serve_heartbeats(heartbeats: Sequence[Heartbeat]) -> Sequence[HeartbeatAnswer | None]:
    # Imported with the first one: the provider's routes are not to be loaded while plugins are.
    from airbridge.controlplane._provider_heartbeats import serve_heartbeats

    return serve_heartbeats(heartbeats)


def _count_start(job: ClaimedJob) -> None:
    """Airflow's own metric of a job that was handed out, as the edge provider's fetch counts it."""
    from airflow.stats import Stats

    tags = {"dag_id": job.key.dag_id, "task_id": job.key.task_id, "queue": job.queue}
    Stats.incr("edge_worker.ti.start", tags=tags)


def _fleet_api() -> dict[str, Any]:
    from airbridge.controlplane._fleet_api import create_fleet_api
    from airbridge.controlplane._late_reports import ignore_late_reports

    ignore_late_reports()
    return {"name": "AirBridge fleet API", "app": create_fleet_api(_audit()), "url_prefix": "/airbridge"}


class AirbridgePlugin(AirflowPlugin):  # type: ignore[misc]
    """Authenticates edge workers and answers their questions about themselves."""

    name = "airbridge"
    fastapi_root_middlewares = [_middleware()] if _IN_API_SERVER else []
    fastapi_apps = [_fleet_api()] if _IN_API_SERVER else []
