"""Heartbeats as the edge provider 5.1.0 serves them, several in one transaction. Needs Airflow.

Calls the provider's own ``set_state`` (``providers/edge3/worker_api/routes/worker.py``) for each: state,
maintenance, shutdown, metrics and the check of versions are decided there. Only when to
commit is decided here: after the last of them; and the rows of all workers are read before the first.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from airflow import settings
from airflow.providers.edge3.models.edge_worker import EdgeWorkerModel
from airflow.providers.edge3.worker_api.datamodels import WorkerStateBody
from airflow.providers.edge3.worker_api.routes.worker import set_state
from fastapi import HTTPException
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select, operators

from airbridge.controlplane._heartbeats import HeartbeatAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airbridge.controlplane._heartbeats import Heartbeat

__all__ = ["serve_heartbeats"]

_NAME: Final = EdgeWorkerModel.worker_name.key


class _Shared(Session):  # type: ignore[misc]
    """A session of several calls, each of which thinks that it is alone."""

    _workers: Mapping[str, EdgeWorkerModel] = {}

    def look_up(self, names: Iterable[str]) -> None:
        """Read the rows of these workers: one question, where each call would ask for its own."""
        found = self.scalars(select(EdgeWorkerModel).where(EdgeWorkerModel.worker_name.in_(set(names))))
        self._workers = {worker.worker_name: worker for worker in found}

    def scalar(self, statement: Select[Any], *arguments: Any, **options: Any) -> Any:
        """Answer a call's question for its worker with what was read; ask the database any other."""
        worker = self._workers.get(_worker_asked_for(statement))
        return super().scalar(statement, *arguments, **options) if worker is None else worker

    def commit(self) -> None:
        """Leave it to :meth:`commit_all`."""

    def commit_all(self) -> None:
        """Write what all calls have changed, in the order of the workers' names (as a unit of work does)."""
        super().commit()


def serve_heartbeats(heartbeats: Sequence[Heartbeat]) -> list[HeartbeatAnswer | None]:
    """Serve heartbeats in one transaction; ``None``: what is wrong with the body is for FastAPI to say."""
    # As Airflow's own sessions are made (airflow/settings.py, configure_orm).
    with _Shared(bind=settings.engine, autoflush=False, expire_on_commit=False) as session:
        session.look_up(heartbeat.worker for heartbeat in heartbeats)
        answers = [_answer(heartbeat, session) for heartbeat in heartbeats]
        session.commit_all()
    return answers


def _worker_asked_for(statement: Select[Any]) -> str:
    """Return W of ``select(EdgeWorkerModel).where(EdgeWorkerModel.worker_name == W)``; else nothing."""
    where = statement.whereclause
    if getattr(where, "operator", None) is not operators.eq or getattr(where.left, "key", "") != _NAME:
        return ""
    whole_row = all(column["expr"] is EdgeWorkerModel for column in statement.column_descriptions)
    return str(where.right.value) if whole_row else ""


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
