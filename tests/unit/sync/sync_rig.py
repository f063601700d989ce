"""A mirror on a store of its own, as the unit tests of dag-sync drive it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from tests.unit.sync.sync_peer import read_tree

from airbridge.sync._mirror import Mirror, Outcome
from airbridge.sync._on_demand import OnDemand
from airbridge.sync._rclone import Rclone
from airbridge.sync._trees import TreeStore
from airbridge.sync.s3 import Bucket
from airbridge.sync.store import current_tree
from airbridge.tree_document import References

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.sync.sync_peer import Peer

    from airbridge.sync._settings import Settings


@dataclass
class Rig:
    """A mirror on a store, with its log and what readers see."""

    peer: Peer
    settings: Settings
    store: TreeStore
    mirror: Mirror
    output: io.StringIO
    demand: OnDemand

    def run(self, *, full: bool = False) -> Outcome:
        return self.mirror.run(full=full)

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def seen(self) -> dict[str, bytes] | None:
        current = current_tree(self.settings.dag_store)
        return None if current is None else read_tree(current.path)

    def gets(self) -> list[str]:
        return [request.key for request in self.peer.requests if request.operation == "get"]


def references(*trees: str, age_s: float = 0) -> bytes:
    """What the control plane's collector wrote ``age_s`` seconds ago: these trees are needed."""
    written_at = datetime.now(UTC) - timedelta(seconds=age_s)
    return References(frozenset(trees), written_at.isoformat(timespec="seconds")).to_bytes()


def make_rig(
    peer: Peer | None, settings: Settings, on_request: Callable[[str], None] = lambda _operation: None
) -> Rig:
    """Return a mirror that has begun; ``peer`` is the S3 server, when it is the one of the unit tests."""
    output = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(output),
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    store = TreeStore(settings.dag_store)
    store.open()
    demand = OnDemand(settings, store, Bucket(settings), log)
    mirror = Mirror(
        settings, store, Bucket(settings, on_request), Rclone(settings), log, leased=demand.leased
    )
    mirror.start()
    return Rig(peer, settings, store, mirror, output, demand)
