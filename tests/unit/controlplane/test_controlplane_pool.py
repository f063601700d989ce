"""The api-server's connections to Postgres, against the threads that want them."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import yaml

from airbridge.controlplane._edge_middleware import _EDGE_PLACES, _TASK_PLACES

COMPOSE = Path(__file__).parents[3] / "compose.yaml"


# Requests of people's browsers that may be inside at the same time as all that are counted.
PEOPLE = 32


def test_api_server_never_has_as_many_requests_as_threads_and_connections_together() -> None:
    """With so many, all threads can wait for a connection while who has one waits for a thread."""

    async def threads() -> float:
        return anyio.to_thread.current_default_thread_limiter().total_tokens

    settings = yaml.safe_load(COMPOSE.read_text())["services"]["api-server"]["environment"]
    connections = sum(
        int(settings[f"AIRFLOW__DATABASE__SQL_ALCHEMY_{name}"]) for name in ("POOL_SIZE", "MAX_OVERFLOW")
    )
    assert connections + anyio.run(threads) > _EDGE_PLACES + _TASK_PLACES + PEOPLE
