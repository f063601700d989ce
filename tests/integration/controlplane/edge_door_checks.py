"""Checks of the edge door against the stock edge provider, with the versions in the image; see
checks_in_image.py."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

SECRET = "e" * 64
INTERNAL = "internal-" + "i" * 64
# What the api-server has; the edge API behind the door verifies with it.
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = INTERNAL

import httpx  # noqa: E402
import jwt  # noqa: E402
from airflow.api_fastapi.auth.tokens import JWTGenerator  # noqa: E402
from airflow.api_fastapi.core_api.app import init_middlewares  # noqa: E402
from airflow.providers.edge3.worker_api.auth import jwt_token_authorization_rest  # noqa: E402
from fastapi import Depends, FastAPI  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402

from airbridge.audit import Audit  # noqa: E402
from airbridge.controlplane._dispatch import Dispatch  # noqa: E402
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware  # noqa: E402
from airbridge.controlplane._shortcut import Shortcut  # noqa: E402
from airbridge.identity.database import Database  # noqa: E402
from airbridge.identity.jobs import Job, JobKey  # noqa: E402
from airbridge.identity.model import Allowance, Worker  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FETCH = '{"queues": ["default"], "free_concurrency": 1}'
RUN_ID = "manual__2026-01-01T00:00:00+00:00"


class Enrolled:
    """One worker, in the place of the database, which no container of these checks reaches."""

    def find(self, name: str) -> Worker | None:
        worker = Worker("north-1", Allowance(("default",), 8), datetime.now(UTC), secrets=(SECRET,))
        return worker if name == "north-1" else None

    def revision(self) -> int:
        return 1

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        assert list(seen) == ["north-1"]

    def names(self) -> frozenset[str]:
        return frozenset({"north-1"})


class Turn:
    """A worker's turn to fetch."""

    held = 0

    def end(self, handed: JobKey | None = None, fetch_id: str | None = None) -> None:
        assert handed is None  # these answers hand out nothing


class Ledger:
    """One job, of that worker."""

    def turn(self, worker: str) -> Turn:
        return Turn()

    def job(self, key: JobKey) -> Job | None:
        return Job("north-1", "running") if key == JobKey("etl", "extract", RUN_ID, -1, 1) else None

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        return False


def _edge_api() -> FastAPI:
    """Routes as in the edge provider, with its own check of the token, mounted as the api-server does."""
    inner = FastAPI()

    def answer() -> dict[str, bool]:
        return {"served": True}

    guard = [Depends(jwt_token_authorization_rest)]
    inner.post("/v1/jobs/fetch/{worker_name}", dependencies=guard)(answer)
    inner.patch("/v1/jobs/state/{dag}/{task}/{run}/{number}/{index}/{state}", dependencies=guard)(answer)
    outer = FastAPI()
    outer.mount("/edge_worker", inner)
    return outer


def _stock_token(call: str, *, secret: str = SECRET, issuer: str | None = "north-1") -> str:
    """What the stock worker makes, [api_auth] jwt_issuer set to its name."""
    generator = JWTGenerator(secret_key=secret, valid_for=30, audience="api", issuer=issuer)
    token: str = generator.generate({"method": call})
    return token


def _ask(app: Any, verb: str, call: str, token: str) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api-server") as client:
            headers = {"Authorization": token, "Content-Type": "application/json"}
            return await client.request(verb, f"/edge_worker/v1/{call}", headers=headers, content=FETCH)

    return asyncio.run(go())


def _no_database() -> Any:
    raise AssertionError("these checks claim no jobs")


def _door() -> EdgeMiddleware:
    dispatch = Dispatch(Database(_no_database), lambda job: None)
    guard = EdgeGuard(Enrolled(), Ledger(), INTERNAL, dispatch)  # type: ignore[arg-type]
    return EdgeMiddleware(_edge_api(), guard, Audit(CollectorRegistry()))


def check_edge_door_lets_the_stock_worker_through_to_the_stock_edge_api(_: Path) -> None:
    calls = {"POST": "jobs/fetch/north-1", "PATCH": f"jobs/state/etl/extract/{RUN_ID}/1/-1/success"}
    for verb, call in calls.items():
        answer = _ask(_door(), verb, call, _stock_token(call))
        assert answer.status_code == 200, answer.text


def check_edge_requests_go_around_the_middlewares_of_airflow(_: Path) -> None:
    """Put together as airflow/api_fastapi/app.py does; its own middlewares come last, and so outermost."""
    dispatch = Dispatch(Database(_no_database), lambda job: None)
    guard = EdgeGuard(Enrolled(), Ledger(), INTERNAL, dispatch)  # type: ignore[arg-type]
    app = _edge_api()
    app.add_middleware(EdgeMiddleware, guard=guard, audit=Audit(CollectorRegistry()))
    init_middlewares(app)
    usual: list[str] = []
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, go: usual.append("") or go(request))
    call = "jobs/fetch/north-1"
    before = _ask(app, "POST", call, _stock_token(call))
    _begin(app)
    assert isinstance(app.middleware_stack, Shortcut)
    answers = [_ask(app, "POST", call, _stock_token(call, secret=secret)) for secret in (SECRET, "x" * 64)]
    assert [answer.status_code for answer in (before, *answers)] == [200, 200, 403]
    assert before.content == answers[0].content
    assert len(usual) == 1


def _begin(app: FastAPI) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "lifespan.shutdown" if said else "lifespan.startup"}

    said: list[str] = []

    async def send(message: Any) -> None:
        said.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def check_edge_door_is_the_only_way_to_the_edge_api(_: Path) -> None:
    # Around the door, a worker's own token is worth nothing.
    call = "jobs/fetch/north-1"
    assert _ask(_edge_api(), "POST", call, _stock_token(call)).status_code == 403


def check_edge_door_refuses_forgeries_with_the_jwt_library_of_the_image(_: Path) -> None:
    call = "jobs/fetch/north-1"
    now = int(time.time())
    claims = {"iss": "north-1", "aud": "api", "iat": now, "nbf": now, "exp": now + 30, "method": call}
    nested = base64.urlsafe_b64encode(b"[" * 20_000).rstrip(b"=").decode()
    forgeries = [
        _stock_token(call, secret="x" * 64),
        _stock_token(call, secret=INTERNAL),
        _stock_token(call, issuer=None),
        _stock_token("jobs/fetch/south-2"),
        jwt.encode(claims, None, algorithm="none"),
        jwt.encode(claims, SECRET, algorithm="HS256"),
        jwt.encode({**claims, "exp": now - 60}, SECRET, algorithm="HS512"),
        jwt.encode({**claims, "exp": now + 9999}, SECRET, algorithm="HS512"),
        jwt.encode({**claims, "exp": [1]}, SECRET, algorithm="HS512"),
        jwt.encode({**claims, "iat": None}, SECRET, algorithm="HS512"),
        jwt.encode({**claims, "aud": "other"}, SECRET, algorithm="HS512"),
        f"{nested}.e30.e30",
        "nonsense",
    ]
    statuses = [_ask(_door(), "POST", call, forgery).status_code for forgery in forgeries]
    assert statuses == [403] * len(forgeries)


def check_edge_door_refuses_the_name_of_another_worker(_: Path) -> None:
    call = "jobs/fetch/south-2"
    answer = _ask(_door(), "POST", call, _stock_token(call))
    assert (answer.status_code, answer.json()["reason"]) == (403, "name_mismatch")


def check_edge_door_is_declared_to_airflow_and_closed_outside_the_api_server(_: Path) -> None:
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    [plugin] = [p for p in plugins_manager.plugins if p.name == "airbridge"]
    assert plugin.fastapi_apps == []
    assert plugin.fastapi_root_middlewares == []
    assert plugins_manager.import_errors == {}
