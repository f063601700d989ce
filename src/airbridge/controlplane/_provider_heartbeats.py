"""Heartbeats as the edge provider 5.1.0 serves them, several in one transaction. Needs Airflow.

Calls the provider's own ``set_state`` (``providers/edge3/worker_api/routes/worker.py``) for each: state,
maintenance, shutdown, metrics and the check of versions are decided there. Only when to
commit is decided here: after the last of them.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow import settings
from airflow.providers.edge3.worker_api.datamodels import WorkerStateBody
from airflow.providers.edge3.worker_api.routes.worker import set_state
from fastapi import HTTPException
from pydantic import ValidationError
from sqlalchemy.orm import Session

from airbridge.controlplane._heartbeats import HeartbeatAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbridge.controlplane._heartbeats import Heartbeat

__all__ = ["serve_heartbeats"]


class _Shared(Session):  # type: ignore[misc]
    """A session of several calls, each of which thinks that it is alone."""

    def commit(self) -> None:
        """Leave it to :meth:`commit_all`."""

    def commit_all(self) -> None:
        """Write what all calls have changed, in the order of the workers' names (as a unit of work does)."""
        super().commit()


def serve_heartbeats(heartbeats: Sequence[Heartbeat]) -> list[HeartbeatAnswer | None]:
    """Serve heartbeats in one transaction; ``None``: what is wrong with the body is for FastAPI to say."""
    # As Airflow's own sessions are made (airflow/settings.py, configure_orm).
    with _Shared(bind=settings.engine, autoflush=False, expire_on_commit=False) as session:
        answers = [_answer(heartbeat, session) for heartbeat in heartbeats]
        session.commit_all()
    return answers


def _answer(heartbeat: Heartbeat, session: Any) -> HeartbeatAnswer | None:
    try:
        body = WorkerStateBody.model_validate(json.loads(heartbeat.body))
    except (ValueError, ValidationError, RecursionError):
        return None
    try:
        said = set_state(heartbeat.worker, body, session)
    except HTTPException as error:
        return HeartbeatAnswer(error.status_code, json.dumps({"detail": error.detail}).encode())
    return HeartbeatAnswer(HTTPStatus.OK, said.model_dump_json().encode())
