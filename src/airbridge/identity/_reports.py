"""What each worker last said about itself, as the edge provider 5.1.0 keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datetime import datetime

    from airbridge.identity.database import Database

__all__ = ["Report", "reports"]

_BUNDLE: Final = "airbridge"  # its name in [dag_processor] dag_bundle_config_list
# Five heartbeats of ten seconds, after which the control plane takes a worker for gone.
_GONE: Final = timedelta(seconds=50)
_OFFLINE: Final = frozenset({"offline", "unknown", "offline maintenance"})


@dataclass(frozen=True, slots=True)
class Report:
    """One worker's last heartbeat."""

    state: str
    live: bool
    """Whether it works: it was heard of lately and did not sign off."""
    heartbeat: datetime | None
    jobs: int
    airbridge_version: str | None
    airflow_version: str | None
    edge_provider_version: str | None
    dag_tree: str | None
    """The tree of its DAG store, which a publisher waits for."""
    dag_current: bool | None
    """Whether that is what the control plane parses; ``None``: one of the two is not known."""


def reports(database: Database) -> dict[str, Report]:
    """Return the last report of every worker that ever registered, by name."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT worker_name, state, last_update, last_update > now() - %s, jobs_active, sysinfo,"
            " (SELECT version FROM dag_bundle WHERE name = %s) FROM edge_worker",
            (_GONE, _BUNDLE),
        )
        return {row[0]: _report(row) for row in cursor.fetchall()}


def _report(row: tuple[Any, ...]) -> Report:
    _, state, seen, recent, jobs, sysinfo, tree = row
    said: dict[str, Any] = sysinfo if isinstance(sysinfo, dict) else {}
    own = said.get("dag_tree")
    return Report(
        state,
        bool(recent) and state not in _OFFLINE,
        seen,
        jobs,
        said.get("airbridge_version"),
        said.get("airflow_version"),
        said.get("edge_provider_version"),
        own,
        own == tree if own and tree else None,
    )
