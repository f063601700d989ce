"""Prepares once, in the worker, what every task would prepare again.

The worker forks supervisors, and each of them forks for every task. What it has not imported or made before,
they import and make anew. No connection is opened here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import Final

import structlog

__all__ = ["warm_up"]

_MODULES: Final = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    # What the names that DAGs take from airflow.sdk are looked up in, each when it is first asked for.
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
    "airflow.timetables.trigger",
    "airflow.providers.amazon.aws.log.s3_task_handler",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.python",
    "airbridge.bundle",
    # Imported by httpx and Jinja2 when they are first used.
    "httpcore",
    "jinja2.ext",
)

_log = structlog.get_logger("airbridge.edge.warm")


@functools.cache
def warm_up() -> None:
    """Import the modules, and make what every task would make, the first time that it is called.

    What fails costs the tasks that need it.
    """
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for make in (_configure_mappers, _load_plugins, _make_s3_client, _make_log_processors):
        try:
            make()
        except Exception:
            _log.warning("each task prepares this for itself", what=make.__name__, exc_info=True)


def _configure_mappers() -> None:
    """What the first Connection of a process does: 0.3 s of CPU."""
    from airflow.models import import_all_models
    from sqlalchemy.orm import configure_mappers

    import_all_models()
    configure_mappers()


def _load_plugins() -> None:
    """What the first event of a task does for its listeners."""
    from airflow.listeners.listener import get_listener_manager

    get_listener_manager()


def _make_s3_client() -> None:
    """What the upload of each log does: 0.3 s of CPU. No connection is opened here, so none is shared."""
    from airbridge.edge.task_logs import REMOTE_TASK_LOG

    _ = REMOTE_TASK_LOG.hook.conn


def _make_log_processors() -> None:
    """What each supervisor and each task makes for its log, and Airflow keeps: 20 ms of CPU.

    Called as both call it (``airflow/sdk/execution_time/supervisor.py``, ``_configure_logging``, and
    ``airflow/sdk/log.py``, ``configure_logging``): it is remembered by its arguments.
    """
    from airflow.configuration import conf
    from airflow.sdk.log import logging_processors

    logging_processors(enable_pretty_log=False)
    colored = conf.getboolean("logging", "colored_console_log", fallback=True)
    logging_processors(False, mask_secrets=False, colored_console_log=colored)
