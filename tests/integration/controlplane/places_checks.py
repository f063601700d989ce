"""Checks of what places are for, with the FastAPI and the SQLAlchemy in the image; see checks_in_image.py."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from airbridge.controlplane._places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREADS = 4
CONNECTIONS = 5
AT_ONCE = 60
PATIENCE_S = 0.5


class Said(BaseModel):
    """An answer, which FastAPI makes in a thread while the session is still open."""

    one: int


def _application() -> FastAPI:
    """A route as those of Airflow's APIs: not async, with a session of its own."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(":memory:", check_same_thread=False),
        poolclass=QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=PATIENCE_S,
    )

    def session() -> Iterator[Session]:
        with Session(engine) as opened:
            yield opened

    app = FastAPI()

    opened = Depends(session)

    @app.get("/one")
    def one(session: Any = opened) -> Said:
        return Said(one=session.scalar(text("SELECT 1")))

    return app


def _ask(app: Any) -> list[Any]:
    async def go() -> list[Any]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api-server") as client:
            calls = [client.get("/one") for _ in range(AT_ONCE)]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(go())


def check_without_places_requests_wait_for_each_other_until_given_up(_: Path) -> None:
    answers = _ask(_application())
    assert {type(answer) for answer in answers} == {NoConnection, httpx.Response}, answers


def check_with_places_all_are_answered(_: Path) -> None:
    answers = _ask(Places(_application(), THREADS + CONNECTIONS - 1))
    assert [getattr(answer, "status_code", answer) for answer in answers] == [200] * AT_ONCE
