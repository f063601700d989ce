"""Checks of the edge door against the stock edge provider, with the versions in the image; see
checks_in_image.py."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from typing import TYPE_CHECKING, Any

EDGE_TOKEN = "edge-" + "e" * 64
INTERNAL = "internal-" + "i" * 64
# What the api-server has; the edge API behind the door verifies with it.
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = INTERNAL

import httpx  # noqa: E402
import jwt  # noqa: E402
from airflow.api_fastapi.auth.tokens import JWTGenerator  # noqa: E402
from airflow.providers.edge3.worker_api.auth import jwt_token_authorization_rest  # noqa: E402
from fastapi import Depends, FastAPI  # noqa: E402

from airbridge.controlplane._edge_middleware import EdgeMiddleware  # noqa: E402
from airbridge.controlplane._edge_token import EdgeTokens  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

RUN_ID = "manual__2026-01-01T00:00:00+00:00"


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


def _stock_token(call: str, *, secret: str = EDGE_TOKEN, issuer: str | None = "north-1") -> str:
    """What the stock worker makes, [api_auth] jwt_issuer set to its name."""
    generator = JWTGenerator(secret_key=secret, valid_for=30, audience="api", issuer=issuer)
    token: str = generator.generate({"method": call})
    return token


def _ask(app: Any, verb: str, call: str, token: str) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api-server") as client:
            return await client.request(verb, f"/edge_worker/v1/{call}", headers={"Authorization": token})

    return asyncio.run(go())


def _door() -> EdgeMiddleware:
    return EdgeMiddleware(_edge_api(), EdgeTokens(EDGE_TOKEN, INTERNAL))


def check_edge_door_lets_the_stock_worker_through_to_the_stock_edge_api(_: Path) -> None:
    calls = {"POST": "jobs/fetch/north-1", "PATCH": f"jobs/state/etl/extract/{RUN_ID}/1/-1/success"}
    for verb, call in calls.items():
        answer = _ask(_door(), verb, call, _stock_token(call))
        assert answer.status_code == 200, answer.text


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
        jwt.encode(claims, EDGE_TOKEN, algorithm="HS256"),
        jwt.encode({**claims, "exp": now - 60}, EDGE_TOKEN, algorithm="HS512"),
        jwt.encode({**claims, "exp": now + 9999}, EDGE_TOKEN, algorithm="HS512"),
        jwt.encode({**claims, "exp": [1]}, EDGE_TOKEN, algorithm="HS512"),
        jwt.encode({**claims, "iat": None}, EDGE_TOKEN, algorithm="HS512"),
        jwt.encode({**claims, "aud": "other"}, EDGE_TOKEN, algorithm="HS512"),
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
