"""The control plane's LocalExecutor: Airflow's own, with a number of workers of its own.

``[core] parallelism`` limits every executor of a scheduler, and here it is sized for a fleet of edge hosts.
Airflow 3.0.4's LocalExecutor takes it as the number of worker processes as well, starts one a waiting task
and never ends them (airflow/executors/local_executor.py, ``_check_workers``): a burst of tasks would leave
dozens in the scheduler's container, about 150 MiB each.
"""

from __future__ import annotations

import os

from airflow.executors.local_executor import LocalExecutor as _AirflowLocalExecutor

from airbridge.errors import SettingsError

__all__ = ["LocalExecutor"]

_VARIABLE = "AIRBRIDGE_LOCAL_PARALLELISM"
_DEFAULT = "2"  # with 150 MiB each: jobs belong to edge hosts, and few run here


def _parallelism() -> int:
    text = os.environ.get(_VARIABLE) or _DEFAULT
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{_VARIABLE}='{text}' is no number of tasks", fix="give a number from 1")
    return int(text)


class LocalExecutor(_AirflowLocalExecutor):  # type: ignore[misc]
    """Runs tasks with ``executor="LocalExecutor"`` in the scheduler's container, a few at a time."""

    def __init__(self) -> None:
        super().__init__(parallelism=_parallelism())
