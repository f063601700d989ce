"""The api-server's connections to Postgres, against the threads that want them."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import yaml

COMPOSE = Path(__file__).parents[3] / "compose.yaml"


def test_api_server_has_more_connections_than_threads_that_wait_for_one() -> None:
    """A request keeps its connection until a thread has written its answer: fewer, and all wait for all."""

    async def threads() -> float:
        return anyio.to_thread.current_default_thread_limiter().total_tokens

    settings = yaml.safe_load(COMPOSE.read_text())["services"]["api-server"]["environment"]
    connections = sum(
        int(settings[f"AIRFLOW__DATABASE__SQL_ALCHEMY_{name}"]) for name in ("POOL_SIZE", "MAX_OVERFLOW")
    )
    assert connections > anyio.run(threads)
