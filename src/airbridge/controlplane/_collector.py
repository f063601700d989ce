"""Say which trees DAG runs need, and remove the documents of those that nobody does.

The control plane's database knows which runs have not finished; edge hosts see only the bucket. So the list
goes there (:mod:`airbridge.tree_document`), and every dag-sync keeps what it names. It is written when it
changes, and every few minutes, so that a reader can tell a collector that found nothing new from one that
does not run.
"""

from __future__ import annotations

import contextlib
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airbridge.controlplane._database import connect
from airbridge.controlplane._needed_trees import needed_trees
from airbridge.controlplane._rounds import note_round
from airbridge.controlplane._settings import load_collector_settings
from airbridge.errors import AirbridgeError
from airbridge.sync.s3 import Bucket
from airbridge.sync.store import is_tree_hash
from airbridge.tree_document import References, document_key, references_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.controlplane._settings import CollectorSettings

__all__ = ["Collector", "collect"]

_HEARTBEAT_SECONDS: Final = 300.0
"""Readers believe a list of half an hour's age (:mod:`airbridge.sync._references`)."""

_SWEEP_SECONDS: Final = 3600.0  # between looks at the documents, which live for weeks

_PATIENCE_S: Final = 120.0  # for Postgres at the start


class Collector:
    """Keeps the references in ``bucket`` equal to what the database says; :meth:`round` does it once."""

    def __init__(
        self,
        settings: CollectorSettings,
        bucket: Bucket,
        look_up: Callable[[], frozenset[str]],
        say: Callable[[str], None] = print,
    ) -> None:
        """Write nothing yet; ``look_up`` returns the trees that are needed now."""
        self._settings = settings
        self._bucket = bucket
        self._look_up = look_up
        self._say = say
        self._key = references_key(settings.environment)
        self._trees: frozenset[str] | None = None  # as written last
        self._version = ""  # S3 version of what was written last
        self._write_at = float("-inf")
        self._sweep_at = float("-inf")

    def round(self) -> None:
        """Look the needed trees up, write them if that is due, and remove documents if that is due.

        Raises:
            AirbridgeError: the database or S3 did not do its part; the next round tries again.
        """
        trees = self._look_up()
        if trees != self._trees or time.monotonic() >= self._write_at:
            self._write(trees)
        if time.monotonic() >= self._sweep_at:
            self._sweep(trees)
            self._sweep_at = time.monotonic() + _SWEEP_SECONDS

    def _write(self, trees: frozenset[str]) -> None:
        if self._trees is None:
            head = self._bucket.head(self._key)
            self._version = head.version if head else ""
        references = References(trees, datetime.now(UTC).isoformat(timespec="seconds"))
        before = self._version
        self._version = self._bucket.put(self._key, references.to_bytes(), "application/json")
        if self._trees is None or trees != self._trees:
            known = self._trees or frozenset()
            self._say(f"{len(trees)} trees are needed, {len(trees - known)} more, {len(known - trees)} less")
        self._trees = trees
        self._write_at = time.monotonic() + _HEARTBEAT_SECONDS
        if before and before != self._version:
            # Nobody reads an old one, and a versioned bucket would keep one for each heartbeat.
            self._bucket.delete(self._key, version=before)

    def _sweep(self, needed: frozenset[str]) -> None:
        """Remove documents that are older than they must be, of trees that nobody needs."""
        keep = timedelta(days=self._settings.airbridge_keep_tree_documents_days)
        prefix = document_key(self._settings.environment, "").removesuffix(".json.gz")
        for item in self._bucket.list(prefix).objects:
            tree = item.path.removesuffix(".json.gz")
            age = datetime.now(UTC) - datetime.fromisoformat(item.last_modified)
            if not is_tree_hash(tree) or tree in needed or age < keep:
                continue
            key = prefix + item.path
            head = self._bucket.head(key)
            if head is not None and head.etag == item.etag:
                self._bucket.delete(key, version=head.version)
                self._say(f"document of tree {tree} removed, {age.days} days old")


def _say(line: str) -> None:
    print(f"collector: {line}", flush=True)


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(0)  # any moment is as good as any other: each request is whole by itself


def collect() -> None:
    """Do round after round; ends by ``SystemExit`` on SIGTERM or SIGINT.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    settings = load_collector_settings()
    database = _Database()
    collector = Collector(settings, Bucket(settings), database.needed_trees, _say)
    trouble = ""
    while True:
        try:
            collector.round()
        except AirbridgeError as error:
            if str(error) != trouble:
                trouble = str(error)
                _say(trouble)
        else:
            if trouble:
                _say("works again")
            trouble = ""
            note_round(settings.airbridge_collect_interval)
        time.sleep(settings.airbridge_collect_interval)


class _Database:
    """One connection, made anew when it broke."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._patience_s = _PATIENCE_S

    def needed_trees(self) -> frozenset[str]:
        if self._connection is None:
            self._connection = connect(self._patience_s)
            self._patience_s = 0
        try:
            return needed_trees(self._connection)
        except BaseException:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None
            raise
