"""The life of dag-sync: poll, back off, recover, and say how it is."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from airbridge.errors import AirbridgeError, IntegrityError, RefusedError, SettingsError, UnreachableError
from airbridge.sync._http import serve
from airbridge.sync._metrics import Metrics
from airbridge.sync._mirror import Mirror
from airbridge.sync._on_demand import OnDemand, UnknownTreeError
from airbridge.sync._rclone import Rclone
from airbridge.sync._settings import load_settings
from airbridge.sync._trees import StoreError, TreeStore
from airbridge.sync._worker_credentials import is_replaced, is_waiting, worker_credentials
from airbridge.sync.s3 import Bucket
from airbridge.sync.store import tree_hashes

if TYPE_CHECKING:
    from airbridge.sync._mirror import Outcome
    from airbridge.sync._settings import Settings

__all__ = ["Service", "run"]

_LONGEST_PAUSE = 15.0
"""Seconds between tries at most, however long S3 is away: soon back once it is."""

_JOIN_POLL_S = 0.2  # reads a file of this host

_STALE_AFTER_INTERVALS = 3
_OPERATIONS = ("added", "changed", "removed", "mended")

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SettingsError, "settings"),
    (UnreachableError, "unreachable"),
    (RefusedError, "refused"),
    (IntegrityError, "integrity"),
    (StoreError, "store"),
)


def configure_logging() -> None:
    """Write one JSON object a line to standard output."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its retries are this module's business
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )


class Service:
    """dag-sync with its settings: :meth:`once` for one full pass, :meth:`forever` for the container."""

    def __init__(self, settings: Settings) -> None:
        """Check everything that can be wrong before the first pass, and take the store's lock."""
        self._settings = settings
        self._log = structlog.get_logger().bind(service="dag-sync")
        self.metrics = Metrics()
        self._store = TreeStore(settings.dag_store)
        bucket = Bucket(
            settings,
            lambda operation: self.metrics.requests.labels(operation).inc(),
            worker_credentials(os.environ),
        )
        rclone = Rclone(settings)
        self._store.open()
        self._on_demand = OnDemand(settings, self._store, bucket, self._log)
        self._mirror = Mirror(
            settings,
            self._store,
            bucket,
            rclone,
            self._log,
            leased=self._on_demand.leased,
            count_document=lambda result: self.metrics.documents.labels(result).inc(),
        )
        self._mirror.start()
        self._guard = threading.Lock()
        self._last_success: float | None = None  # monotonic
        self._outcome: Outcome | None = None
        self._failure: tuple[str, str] = ("", "")  # what, fix
        self._failures = 0

    def once(self) -> int:
        """Do one full pass and return the exit code."""
        try:
            outcome = self._mirror.run(full=True)
        except AirbridgeError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return IntegrityError.exit_code if outcome.held else 0

    def forever(self) -> None:
        """Serve requests, and pass after pass; ends by ``SystemExit`` on SIGTERM or SIGINT."""
        serve(self._settings.health_port, self.health, self.metrics.registry, self._fetch)
        self._log.info(
            "started",
            source=self._settings.source,
            store=str(self._settings.dag_store),
            poll_seconds=self._settings.poll_seconds,
            full_seconds=self._settings.dag_sync_interval,
        )
        self._wait_for_credential()
        next_full = 0.0
        while True:
            started = time.monotonic()
            full = started >= next_full
            if self._pass(full=full):
                if full:
                    next_full = started + self._settings.dag_sync_interval
                took, poll = time.monotonic() - started, self._settings.poll_seconds
                time.sleep(max(poll - took, min(took, poll)))  # rests as long as it worked, at least
            else:
                next_full = 0.0  # after a failure nothing is believed
                pause = self._backoff()
                self._log.info("next try", seconds=round(pause, 1), failures=self._failures)
                time.sleep(pause)
            if is_replaced():
                self._log.warning("the token file was replaced: starting again to read the new one")
                raise SystemExit(0)  # the container is started again, and mounts it

    def _wait_for_credential(self) -> None:
        """Return once a host that joins has its credential: a moment after its worker has started."""
        said = False
        while waiting := is_waiting(os.environ):
            if not said:
                self._log.info("waiting", reason=waiting)
                said = True
            time.sleep(_JOIN_POLL_S)

    def _fetch(self, tree_hash: str) -> int:
        """Answer one request for a tree; log and count it."""
        count = self.metrics.requested_trees.labels
        try:
            fetched = self._on_demand.fetch(tree_hash)
        except AirbridgeError as error:
            count("unknown" if isinstance(error, UnknownTreeError) else "failed").inc()
            self._log.warning("tree not fetched", tree=tree_hash[:80], reason=error.what, fix=error.fix)
            raise
        count("fetched" if fetched else "present").inc()
        return fetched

    def _backoff(self) -> float:
        longest = min(_LONGEST_PAUSE, max(self._settings.dag_sync_interval, self._settings.poll_seconds))
        pause = min(longest, self._settings.poll_seconds * 2.0 ** min(self._failures - 1, 16))
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  (spreads hosts in time, guards nothing)

    def _pass(self, *, full: bool) -> bool:
        """Do one pass, log and count it; return whether it came to its end (packages may be held)."""
        started = time.monotonic()
        outcome: Outcome | None = None
        what = fix = ""
        try:
            outcome = self._mirror.run(full=full)
        except AirbridgeError as error:
            what, fix = error.what, error.fix
            reason = next((label for kind, label in _REASONS if isinstance(error, kind)), "other")
            self._log.error("sync failed", reason=what, fix=fix)
        except Exception as error:
            what, fix, reason = (
                f"{type(error).__name__}: {error}",
                "report this; the old tree stays",
                "unexpected",
            )
            self._log.exception("sync failed", reason=what, fix=fix)
        else:
            if outcome.held:
                package, why = min(outcome.held.items())
                what = f"{len(outcome.held)} packages keep an earlier release; {package}: {why}"
                fix, reason = "publish the package again, or roll it back", "held"
        seconds = time.monotonic() - started
        self.metrics.duration.labels("full" if full else "poll").observe(seconds)
        self.metrics.passes.labels(outcome.result if outcome else "failed").inc()
        if what:
            self.metrics.failures.labels(reason).inc()
        if outcome:
            self._count(outcome)
            if outcome.result not in {"unchanged", "verified"}:
                counts = {
                    name: getattr(outcome, name) for name in ("files", *_OPERATIONS, "transferred_files")
                }
                self._log.info(
                    "synced", result=outcome.result, tree=outcome.tree, seconds=round(seconds, 3), **counts
                )
        with self._guard:
            if outcome:
                self._outcome = outcome
            self._failure = (what, fix)
            if what:
                self._failures += 1
            else:
                if self._failures:
                    self._log.info("recovered", failures=self._failures)
                self._failures = 0
                self._last_success = time.monotonic()
                self.metrics.last_success.set_to_current_time()
        return outcome is not None

    def _count(self, outcome: Outcome) -> None:
        metrics = self.metrics
        for operation in _OPERATIONS:
            metrics.files.labels(operation).inc(getattr(outcome, operation))
        metrics.transferred_files.inc(outcome.transferred_files)
        metrics.transferred_bytes.inc(outcome.transferred_bytes)
        metrics.tree.info({"tree": outcome.tree})
        metrics.tree_files.set(outcome.files)
        metrics.held.set(len(outcome.held))
        metrics.drift.set(outcome.drift)
        metrics.refused.clear()
        for reason, count in outcome.refused.items():
            metrics.refused.labels(reason).set(count)
        if outcome.result != "unchanged":
            metrics.trees.set(len(tree_hashes(self._settings.dag_store)))

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the store equals the bucket, or did a short while ago, and why not."""
        limit = _STALE_AFTER_INTERVALS * self._settings.dag_sync_interval
        with self._guard:
            age = None if self._last_success is None else time.monotonic() - self._last_success
            outcome, (what, fix), failures = self._outcome, self._failure, self._failures
        healthy = age is not None and age < limit
        if healthy:
            status = "ok"
        else:
            status = "starting" if age is None and not failures else "failing" if failures else "stale"
        self.metrics.healthy.set(healthy)
        return healthy, {
            "status": status,
            "reason": what
            or ("" if healthy else "no pass has finished yet" if age is None else "a pass takes too long"),
            "fix": fix,
            "failures": failures,
            "last_success_age_s": None if age is None else round(age, 1),
            "limit_s": limit,
            "source": self._settings.source,
            "tree": outcome.tree if outcome else None,
            "files": outcome.files if outcome else None,
            "refused_keys": sum(outcome.refused.values()) if outcome else 0,
            "held_packages": dict(outcome.held) if outcome else {},
            "drift_files": outcome.drift if outcome else 0,
            "tree_document": self._mirror.documents.trouble,
        }


def _stop(number: int, _frame: object) -> None:
    # Raising here ends whatever waits, a socket or rclone, at once. Any moment is as good as any other: every
    # step of a pass survives a kill.
    raise SystemExit(0)


def run(*, once: bool) -> int:
    """Run dag-sync and return its exit code."""
    configure_logging()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        service = Service(load_settings())
        if once:
            return service.once()
        service.forever()
    except AirbridgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
