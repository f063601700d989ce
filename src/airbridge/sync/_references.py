"""Know which trees unfinished DAG runs need: the control plane's collector writes them into the bucket.

A new need arises only for a tree that is the DAG processor's current one, or was a short while ago, so a
list of some minutes' age is as good as a fresh one for the trees that are old enough to be removed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError, IntegrityError
from airbridge.tree_document import read_references, references_key

if TYPE_CHECKING:
    import structlog

    from airbridge.sync._settings import Settings
    from airbridge.sync.s3 import Bucket
    from airbridge.tree_document import References

__all__ = ["NeededTrees"]

MAX_AGE_SECONDS: Final = 1800
"""The collector writes at least every five minutes: an older list says that it does not run."""

_MAX_BYTES: Final = 8 * 1024 * 1024  # a hundred thousand trees


class NeededTrees:
    """The references, as read last; every failure means that they are not known."""

    def __init__(
        self, settings: Settings, bucket: Bucket, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._key = references_key(settings.environment)
        self._interval = settings.dag_sync_interval
        self._bucket = bucket
        self._log = log
        self._read: References | None = None
        self._etag = ""
        self._asked_at = float("-inf")
        self._said = ""

    @property
    def known(self) -> frozenset[str] | None:
        """The trees that are needed, as far as was read; ``None`` when that is not known."""
        return None if self._said or self._read is None else self._read.trees

    def get(self) -> frozenset[str] | None:
        """Return the trees that are needed, ``None`` when that is not known; one GET an interval at most."""
        if time.monotonic() - self._asked_at >= self._interval:
            self._asked_at = time.monotonic()
            trouble = self._ask()
            if trouble and trouble != self._said:
                self._log.warning(
                    "references not known",
                    reason=trouble,
                    fix="start the control plane's collector; until then trees are kept for a week",
                )
            self._said = trouble
        return self.known

    def _ask(self) -> str:
        """Read them if they changed; return why they cannot be believed, or ""."""
        try:
            got = self._bucket.get(self._key, unless=self._etag, max_bytes=_MAX_BYTES)
            if got is None:
                self._read, self._etag = None, ""
                return f"{self._key} is not in the bucket"
            if got.body is not None:
                self._read, self._etag = read_references(got.body), got.head.etag
            if self._read is None:
                raise IntegrityError(f"{self._key} was never read")
            age = datetime.now(UTC) - datetime.fromisoformat(self._read.written_at)
        except AirbridgeError as error:
            self._read, self._etag = None, ""
            return error.what
        except (ValueError, TypeError):  # no time, or one without its zone
            self._read, self._etag = None, ""
            return f"{self._key} says no time"
        if age.total_seconds() > MAX_AGE_SECONDS:
            return f"{self._key} was written at {self._read.written_at}"
        return ""
