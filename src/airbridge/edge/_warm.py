"""Imports once, in the worker, what every task would import again.

The stock worker forks for each task. What it has not imported before the fork, the supervisor and
the task process of every single task import anew; nothing here runs, it is only loaded.
"""

from __future__ import annotations

import contextlib
import importlib

__all__ = ["warm_up"]

_MODULES = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.amazon.aws.log.s3_task_handler",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.python",
    "airbridge.bundle",
)


def warm_up() -> None:
    """Import the modules; one that is missing only costs the tasks that need it."""
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
