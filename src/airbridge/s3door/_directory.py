"""Workers and publishers under one roof: the door looks a name up without knowing whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airbridge.credential import is_worker_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.identity.model import Worker
    from airbridge.identity.publishers import Publisher, PublisherStore
    from airbridge.identity.store import WorkerStore

__all__ = ["Directory"]


class Directory:
    """Everybody who may have a credential; methods ask the database and block."""

    def __init__(self, workers: WorkerStore, publishers: PublisherStore) -> None:
        self._workers = workers
        self._publishers = publishers

    def find(self, name: str) -> Worker | Publisher | None:
        """Return who has this name, revoked and expired ones too; ``None``: nobody."""
        if not is_worker_name(name):
            return None
        return self._workers.find(name) or self._publishers.find(name)

    def revision(self) -> int:
        """Return a number that differs from an earlier one when anybody's enrolment has changed since."""
        return self._workers.revision()

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """Note how many seconds ago each of these proved itself."""
        self._workers.mark_seen(seen)
        self._publishers.mark_seen(seen)
