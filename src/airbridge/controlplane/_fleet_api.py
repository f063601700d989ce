"""``/airbridge/v1``: what an edge host asks the control plane about itself, and people about all of them.

An edge host's requests get here through :class:`~airbridge.controlplane._edge_middleware.EdgeMiddleware`
only. ``GET /v1/workers`` is for people: it takes what the REST API takes, and is closed at the edge
door, and so is ``GET /v1/metrics``, which counts refusals and names nobody.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import airbridge

if TYPE_CHECKING:
    from airbridge.audit import Audit

__all__ = ["create_fleet_api"]

_MISSED_HEARTBEATS: Final = 5
"""A worker that was not heard of for so many heartbeats is not alive; the edge executor thinks so too."""
_DEFAULT_HEARTBEAT_SECONDS: Final = 30  # of the edge provider


def create_fleet_api(audit: Audit) -> Any:
    """Return the FastAPI application. Needs Airflow; imported in the api-server only.

    :param audit: whose counts ``GET /v1/metrics`` shows
    """
    from airflow import __version__ as airflow_version
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.common.db.common import SessionDep
    from airflow.api_fastapi.core_api.security import requires_access_view
    from airflow.configuration import conf
    from airflow.providers.edge3 import __version__ as edge_provider_version
    from airflow.providers.edge3.models.edge_worker import EdgeWorkerModel, EdgeWorkerState
    from fastapi import Body, Depends, FastAPI, HTTPException, Request, Response
    from prometheus_client import CONTENT_TYPE_LATEST
    from sqlalchemy import select

    app = FastAPI(title="AirBridge fleet API", docs_url=None, redoc_url=None, openapi_url=None)

    def version() -> dict[str, str]:
        return {
            "airbridge": airbridge.__version__,
            "airflow": airflow_version,
            "edge_provider": edge_provider_version,
            "time": datetime.now(UTC).isoformat(),
        }

    app.get("/v1/version")(version)

    def echo(body: dict[str, Any] = Body(...)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way to say it
        return body

    app.post("/v1/echo")(echo)

    def enrolment(name: str, request: Request) -> dict[str, Any]:
        # The middleware lets a worker ask for itself only, and has just looked it up.
        worker = request.scope["airbridge.worker"]
        return {
            "name": name,
            "queues": list(worker.allowance.queues),
            "concurrency": worker.allowance.concurrency,
            "expires_at": worker.expires_at.isoformat() if worker.expires_at else None,
        }

    enrolment.__annotations__.update(name=str, request=Request)
    app.get("/v1/enrolment/{name}")(enrolment)

    def metrics() -> Response:
        return Response(audit.metrics(), media_type=CONTENT_TYPE_LATEST)

    metrics.__annotations__.clear()
    app.get("/v1/metrics")(metrics)

    def seen_of(row: Any) -> dict[str, Any]:
        seen = row.last_update
        return {
            "name": row.worker_name,
            "state": str(row.state),
            "queues": row.queues,
            "last_update": seen.isoformat() if seen else None,
            "age_s": (datetime.now(UTC) - seen).total_seconds() if seen else None,
        }

    def worker(name: str, session: SessionDep) -> dict[str, Any]:
        row = session.scalar(select(EdgeWorkerModel).where(EdgeWorkerModel.worker_name == name))
        if row is None:
            raise HTTPException(404, f"worker '{name}' has not registered")
        return seen_of(row)

    # SessionDep is a local name, which FastAPI could not resolve from an annotation that is a string.
    worker.__annotations__.update(name=str, session=SessionDep)
    app.get("/v1/workers/{name}")(worker)

    heartbeat = conf.getint("edge", "heartbeat_interval", fallback=_DEFAULT_HEARTBEAT_SECONDS)
    gone = {EdgeWorkerState.OFFLINE, EdgeWorkerState.OFFLINE_MAINTENANCE, EdgeWorkerState.UNKNOWN}

    def workers(session: SessionDep) -> dict[str, Any]:
        rows = session.scalars(select(EdgeWorkerModel).order_by(EdgeWorkerModel.worker_name))
        return {"workers": [described(row) for row in rows]}

    def described(row: Any) -> dict[str, Any]:
        said, seen = row.sysinfo or {}, seen_of(row)
        age = seen["age_s"]
        heard = age is not None and age <= heartbeat * _MISSED_HEARTBEATS
        return {
            **seen,
            "live": heard and row.state not in gone,
            "airbridge_version": said.get("airbridge_version"),
            "dag_tree": said.get("dag_tree"),
        }

    workers.__annotations__.update(session=SessionDep)
    # Who may see the cluster's activity in the web UI (the roles Viewer and above) may see this.
    people = Depends(requires_access_view(access_view=AccessView.CLUSTER_ACTIVITY))
    app.get("/v1/workers", dependencies=[people])(workers)
    return app
