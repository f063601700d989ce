"""Called by the stock edge worker before each heartbeat (``[edge] extended_system_info_function``).

Adds what an operator wants to see of an edge host, notes that a heartbeat leaves (see
:mod:`airbridge.edge._presence`), removes old logs that are in S3, has those sent that could not be sent in
their time, and reports a full disk as an error: with ``[edge] automatic_maintenance_on=error`` the worker
then finishes what it runs, takes nothing new, and comes back by itself once there is room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import airbridge
from airbridge.edge._late_logs import LateLogs
from airbridge.edge._log_files import sweep
from airbridge.edge._presence import Presence
from airbridge.edge._warm import warm_up
from airbridge.sync.store import current_tree

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["BYTES_PER_MIB", "report"]

BYTES_PER_MIB = 1024 * 1024

_LOGS: Final = "/opt/airflow/logs"  # [logging] base_log_folder in edge-worker/airflow.cfg
_COURIER: Final = "http://courier:8080"  # COURIER_URL, where nothing says otherwise
_STORE: Final = "/store"  # DAG_STORE, where nothing says otherwise
_SWEEP_EVERY: Final = 60  # calls; ten minutes at the usual heartbeat


@dataclass(slots=True)
class _Calls:
    """How often this process was asked: the first time is before it is registered."""

    count: int = field(default=0)
    late_logs: LateLogs | None = field(default=None)


_calls = _Calls()


def _observe() -> dict[str, str | int | float | datetime]:
    state_dir = Path(os.environ["EDGE_STATE_DIR"])
    minimum = int(os.environ["EDGE_MIN_FREE_DISK_MB"])
    _calls.count += 1
    if _calls.count > 1:
        # A disk that is full must not stop the heartbeat that says so.
        with contextlib.suppress(OSError):
            Presence(state_dir, os.environ["AIRFLOW__API_AUTH__JWT_ISSUER"]).mark()
    # Others clean up beside this one, and what one of them was faster with is no trouble.
    with contextlib.suppress(OSError):
        _care_for_logs(Path(os.environ.get("AIRFLOW__LOGGING__BASE_LOG_FOLDER", _LOGS)))
    free = shutil.disk_usage(state_dir).free // BYTES_PER_MIB
    info: dict[str, str | int | float | datetime] = {
        "airbridge_version": airbridge.__version__,
        "dag_tree": _dag_tree(),
        "disk_free_mb": free,
    }
    if free < minimum:
        info["status"] = logging.ERROR
        info["status_text"] = f"disk is full: {free} MiB free, {minimum} MiB wanted (EDGE_MIN_FREE_DISK_MB)"
    return info


def _care_for_logs(folder: Path) -> None:
    if _calls.late_logs is None:
        # The first time, when no task of this worker writes yet.
        _calls.late_logs = LateLogs(folder, os.environ.get("COURIER_URL", _COURIER))
    _calls.late_logs.look()
    if _calls.count % _SWEEP_EVERY == 0:
        sweep(folder)


def _dag_tree() -> str:
    """Return the tree that this host shows, so that a publisher can wait until every host does."""
    current = current_tree(Path(os.environ.get("DAG_STORE", _STORE)))
    return current.hash if current else "none"


async def report() -> dict[str, str | int | float | datetime]:
    """Return the additions to the worker's system information."""
    if _calls.count == 0:
        # The first time is before the worker registers, so before it forks for any task.
        warm_up()
    return await asyncio.to_thread(_observe)
