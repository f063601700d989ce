"""What a process starts with is not looked at by its garbage collector once it serves."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from tests.unit.controlplane.edge_requests import Enrolments, Ledger, door_before

pytestmark = pytest.mark.usefixtures("collector_as_before")


def _start(*said: str) -> list[str]:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for word in said:
            await send({"type": word})

    async def send(message: Any) -> None:
        heard.append(message["type"])

    async def receive() -> Any:
        raise AssertionError("nobody asks")

    asyncio.run(door_before(app, Enrolments(), Ledger())({"type": "lifespan"}, receive, send))
    return heard


def test_objects_are_frozen_when_the_application_has_started() -> None:
    before = gc.get_freeze_count()
    assert _start("lifespan.startup.complete") == ["lifespan.startup.complete"]
    assert gc.get_freeze_count() > before + 1000


def test_later_objects_are_collected_less_often() -> None:
    before = gc.get_threshold()
    _start("lifespan.startup.complete")
    assert gc.get_threshold()[0] > 10 * before[0]
    assert gc.isenabled()


def test_nothing_is_frozen_of_an_application_that_failed_to_start() -> None:
    before = gc.get_freeze_count(), gc.get_threshold()
    assert _start("lifespan.startup.failed") == ["lifespan.startup.failed"]
    assert (gc.get_freeze_count(), gc.get_threshold()) == before
