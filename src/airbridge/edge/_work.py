"""Starts the edge worker in this process, as ``airflow edge worker`` starts the provider's."""

from __future__ import annotations

import asyncio
import os

__all__ = ["work"]


def work(*, courier: str, restarted: bool, hostname: str, queues: tuple[str, ...], concurrency: int) -> None:
    """Work until drained; signals, pid file and the commands ``airflow edge status|stop`` are the provider's.

    :param courier: ``http://host:port`` of the courier
    :param restarted: the worker before was this host's own, and is dead
    """
    # As the provider's own command says it, which looks at the command line for that: there is no database.
    os.environ["_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK"] = "1"
    from airflow.providers.edge3.cli.signalling import pid_file_path
    from airflow.providers_manager import ProvidersManager

    # The options of [edge] have their defaults in the provider, which only the command line reads by itself.
    ProvidersManager().initialize_providers_configuration()

    from airbridge.edge.runner import Runner

    runner = Runner(
        courier,
        restarted=restarted,
        pid_file_path=pid_file_path(None),
        hostname=hostname,
        queues=list(queues),
        concurrency=concurrency,
    )
    asyncio.run(runner.start())
