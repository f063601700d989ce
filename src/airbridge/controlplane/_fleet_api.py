"""``/airbridge/v1``: what an edge host asks the control plane about itself (diag and health checks).

Requests get here through :class:`~airbridge.controlplane._edge_middleware.EdgeMiddleware` only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import airbridge

__all__ = ["create_fleet_api"]


def create_fleet_api() -> Any:
    """Return the FastAPI application. Needs Airflow; imported in the api-server only."""
    from airflow import __version__ as airflow_version
    from airflow.api_fastapi.common.db.common import SessionDep
    from airflow.providers.edge3 import __version__ as edge_provider_version
    from airflow.providers.edge3.models.edge_worker import EdgeWorkerModel
    from fastapi import Body, FastAPI, HTTPException
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

    def worker(name: str, session: SessionDep) -> dict[str, Any]:
        row = session.scalar(select(EdgeWorkerModel).where(EdgeWorkerModel.worker_name == name))
        if row is None:
            raise HTTPException(404, f"worker '{name}' has not registered")
        seen = row.last_update
        return {
            "name": row.worker_name,
            "state": str(row.state),
            "queues": row.queues,
            "last_update": seen.isoformat() if seen else None,
            "age_s": (datetime.now(UTC) - seen).total_seconds() if seen else None,
        }

    # SessionDep is a local name, which FastAPI could not resolve from an annotation that is a string.
    worker.__annotations__.update(name=str, session=SessionDep)
    app.get("/v1/workers/{name}")(worker)
    return app
