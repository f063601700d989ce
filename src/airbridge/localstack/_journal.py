"""What one request changed, and the lock that keeps changes apart.

Memory is changed first, by LocalStack's code; the names of what changed are noted in the request's
:class:`Changes`; when the request's handler returns, the storage writes all of them in one transaction, or
puts memory back to what the database holds.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Changes", "Journal"]


@dataclass(slots=True)
class Changes:
    """Names of what a request changed (or may have changed) in memory.

    ``exclusive``: the request holds the lock from its start; everything that it looked up counts as changed.
    ``versions`` maps (bucket, key, version id) to True when the version was put on top of its key.
    ``condition`` is what a conditional write asks of the object that it is about to replace (``None``: there
    is none): it raises when that does not hold. It is asked while nobody else can change anything.
    """

    exclusive: bool
    locked: bool = False
    buckets: set[str] = field(default_factory=set)
    versions: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    uploads: set[tuple[str, str]] = field(default_factory=set)
    parts: set[tuple[str, str, int]] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    created_bodies: set[str] = field(default_factory=set)
    removed_buckets: dict[str, Any] = field(default_factory=dict)
    condition: Callable[[Any], None] | None = None

    def __bool__(self) -> bool:
        return bool(self.buckets or self.versions or self.uploads or self.parts or self.tags)

    def version(self, bucket: str, key: str, version_id: str, *, placed: bool = False) -> None:
        """Note a version; ``placed`` when it is the newest of its key now."""
        name = (bucket, key, version_id)
        self.versions[name] = placed or self.versions.get(name, False)


class Journal:
    """Finds the :class:`Changes` of the request that the current thread works on."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._local = threading.local()

    def start(self, *, exclusive: bool) -> Changes:
        """Begin a request on this thread."""
        if getattr(self._local, "changes", None) is not None:
            raise RuntimeError("a request is already open on this thread")
        changes = Changes(exclusive=exclusive)
        self._local.changes = changes
        if exclusive:
            self.changing()
        return changes

    def finish(self) -> None:
        """End the request of this thread and let others change things."""
        changes = self._local.changes
        self._local.changes = None
        if changes.locked:
            self.lock.release()

    def changing(self) -> Changes:
        """Return the request's changes, having made sure that nobody else changes anything until it ends.

        Called before the first change, not when a request starts: a body may take minutes to arrive.
        """
        changes: Changes | None = getattr(self._local, "changes", None)
        if changes is None:
            raise RuntimeError("S3 state was changed outside of a request; it would not be durable")
        if not changes.locked:
            self.lock.acquire()
            changes.locked = True
        return changes

    def watching(self) -> Changes | None:
        """Return the request's changes if it is exclusive: what it looks up, it may change in place."""
        changes: Changes | None = getattr(self._local, "changes", None)
        return changes if changes is not None and changes.exclusive else None

    def created_body(self, body_id: str) -> None:
        """Note a body that must go again if the request fails."""
        changes: Changes | None = getattr(self._local, "changes", None)
        if changes is not None:
            changes.created_bodies.add(body_id)
