"""Checks of the fleet API with the auth library and the edge provider in the image; see checks_in_image."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

os.environ["AIRFLOW__CORE__AUTH_MANAGER"] = (
    "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
)
os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", "internal-" + "i" * 64)

import httpx
from airflow.api_fastapi.app import create_auth_manager, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.providers.edge3.models.edge_worker import EdgeWorkerModel
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airbridge.audit import Audit
from airbridge.controlplane._fleet_api import create_fleet_api

if TYPE_CHECKING:
    from pathlib import Path


def _fleet() -> Any:
    """The API on a database of its own, with workers of every kind."""
    engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
    EdgeWorkerModel.__table__.create(engine)
    now = datetime.now(UTC)
    with Session(engine) as session:
        for name, state, age, sysinfo in (
            ("idle", "idle", 5, {"airbridge_version": "0.1.0", "dag_tree": "a" * 64}),
            ("silent", "running", 3600, {"dag_tree": "b" * 64}),
            ("stopped", "offline", 1, {}),
            ("stock", "running", 1, None),
        ):
            worker = EdgeWorkerModel(name, state, ["default"], last_update=now - timedelta(seconds=age))
            worker.sysinfo = sysinfo
            session.add(worker)
        session.commit()
    app = create_fleet_api(Audit(CollectorRegistry()))
    depends = SessionDep.__metadata__[0].dependency

    def session_of_the_test() -> Any:
        with Session(engine) as session:
            yield session

    app.dependency_overrides[depends] = session_of_the_test
    return app


def _ask(app: Any, token: str | None) -> httpx.Response:
    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return await client.get("/v1/workers", headers=headers)

    return asyncio.run(go())


def _token(role: str | None) -> str:
    create_auth_manager()
    token: str = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ana", role=role))
    return token


def check_fleet_is_listed_for_a_person_with_what_each_worker_reports(_: Path) -> None:
    answer = _ask(_fleet(), _token("viewer"))
    assert answer.status_code == 200, answer.text
    workers = {row["name"]: row for row in answer.json()["workers"]}
    assert list(workers) == ["idle", "silent", "stock", "stopped"]
    assert {name: row["live"] for name, row in workers.items()} == {
        "idle": True,
        "silent": False,
        "stock": True,
        "stopped": False,
    }
    idle = workers["idle"]
    assert (idle["dag_tree"], idle["airbridge_version"]) == ("a" * 64, "0.1.0")
    assert (idle["state"], idle["queues"]) == ("idle", ["default"])
    assert 4 < idle["age_s"] < 3600
    assert workers["stock"]["dag_tree"] is None


def check_fleet_is_hidden_from_whoever_is_not_signed_in_or_has_no_rights(_: Path) -> None:
    fleet = _fleet()
    assert _ask(fleet, None).status_code == 401
    assert _ask(fleet, "nonsense").status_code == 403
    assert _ask(fleet, _token(None)).status_code == 403
