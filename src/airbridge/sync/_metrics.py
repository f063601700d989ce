"""What dag-sync counts; every name starts with ``airbridge_dag_sync_``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.metrics import disable_created_metrics

__all__ = ["Metrics"]

_PREFIX = "airbridge_dag_sync"
# A poll of a small bucket takes milliseconds, a first mirror of ten thousand files half a minute.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics of one dag-sync, in a registry of their own."""

    def __init__(self) -> None:
        """Make them all, at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.passes = Counter(
            f"{_PREFIX}_passes",
            "Passes by result: unchanged, verified, changed, partial, failed",
            ["result"],
            registry=registry,
        )
        for result in ("unchanged", "verified", "changed", "partial", "failed"):
            self.passes.labels(result)
        self.failures = Counter(
            f"{_PREFIX}_failures", "Failed passes by kind of error", ["reason"], registry=registry
        )
        self.duration = Histogram(
            f"{_PREFIX}_pass_duration_seconds",
            "How long a pass took, by kind: poll or full",
            ["kind"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.files = Counter(
            f"{_PREFIX}_file_operations",
            "Files of the published tree by operation: added, changed, removed, mended",
            ["operation"],
            registry=registry,
        )
        self.transferred_files = Counter(
            f"{_PREFIX}_transferred_files", "Files of trees that came from S3", registry=registry
        )
        self.transferred_bytes = Counter(f"{_PREFIX}_transferred_bytes", "Their bytes", registry=registry)
        self.requests = Counter(
            f"{_PREFIX}_s3_requests",
            "Requests to S3 beside rclone's, by operation: list, head, get, put, delete",
            ["operation"],
            registry=registry,
        )
        self.last_success = Gauge(
            f"{_PREFIX}_last_success_timestamp_seconds",
            "When the store last equalled the bucket (Unix time)",
            registry=registry,
        )
        self.healthy = Gauge(f"{_PREFIX}_healthy", "1 while /healthz answers 200", registry=registry)
        self.tree = Info(f"{_PREFIX}_tree", "The current tree", registry=registry)
        self.tree_files = Gauge(f"{_PREFIX}_tree_files", "Files in the current tree", registry=registry)
        self.trees = Gauge(f"{_PREFIX}_trees_kept", "Trees in the store", registry=registry)
        self.refused = Gauge(
            f"{_PREFIX}_refused_keys",
            "Keys in the bucket that are refused, by reason",
            ["reason"],
            registry=registry,
        )
        self.drift = Gauge(
            f"{_PREFIX}_drift_files",
            "Objects that lie in a package whose manifest does not name them",
            registry=registry,
        )
        self.documents = Counter(
            f"{_PREFIX}_tree_documents", "Tree documents by result: written, failed", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("written", "failed"):
            self.documents.labels(result)
        self.requested_trees = Counter(
            f"{_PREFIX}_tree_requests",
            "Trees asked for on demand by result: present, fetched, unknown, failed",
            ["result"],
            registry=registry,
        )
        for result in ("present", "fetched", "unknown", "failed"):
            self.requested_trees.labels(result)
        self.held = Gauge(
            f"{_PREFIX}_held_packages", "Packages that keep an earlier release", registry=registry
        )
