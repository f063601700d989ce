"""What an edge host may ask of S3 through the gateway.

The gateway asks here about each request before it hands it to S3, and has a list of its own of methods,
buckets and prefixes that no worker needs. What it cannot know is who asks, and whose job a log is of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote

from airbridge.controlplane._refusal import Refusal
from airbridge.identity.jobs import JobKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.controlplane._edge_rules import EdgeRules
    from airbridge.identity.jobs import Job
    from airbridge.identity.model import Worker

__all__ = ["S3Layout", "S3Rules"]

_PREFIX: Final = "/s3/"
_READS: Final = ("GET", "HEAD")
_WRITES: Final = ("PUT", "POST")
# [logging] log_filename_template of Airflow 3.0.4.
_LOG: Final = re.compile(
    r"dag_id=(?P<dag>[^/]+)/run_id=(?P<run>[^/]+)/task_id=(?P<task>[^/]+)/"
    r"(?:map_index=(?P<map>[0-9]{1,9})/)?attempt=(?P<try>[0-9]{1,9})\.log"
)


@dataclass(frozen=True, slots=True)
class S3Layout:
    """Where things are in S3."""

    dag_bucket: str
    log_bucket: str
    environment: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> S3Layout:
        """Read it from the environment of a service."""
        return cls(
            environ.get("DAG_BUCKET") or "airbridge-dags",
            environ.get("LOG_BUCKET") or "airbridge-logs",
            environ.get("ENVIRONMENT") or "dev",
        )


class S3Rules:
    """The rules of S3. :meth:`check` may ask the database and block: call it in a thread."""

    def __init__(self, layout: S3Layout, edge: EdgeRules) -> None:
        self._layout = layout
        self._edge = edge

    def check(self, worker: Worker, method: str, uri: str) -> Job | None:
        """Make sure that ``worker`` may send this request; returns the job whose log it is about.

        :param uri: path and query as the gateway received them, ``/s3/<bucket>/<key>?…``
        :raises Refusal: it may not
        """
        encoded, _, query = uri.partition("?")
        path = unquote(encoded)
        if not path.startswith(_PREFIX) or "%" in path or "\0" in path:
            raise _refused()
        bucket, _, key = path.removeprefix(_PREFIX).partition("/")
        if not key:
            self._check_bucket(worker, method, bucket, query)
        elif bucket == self._layout.dag_bucket:
            self._check_dags(method, key)
        elif bucket == self._layout.log_bucket and method in (*_READS, *_WRITES):
            return self._check_logs(worker, key)
        else:
            raise _refused()
        return None

    def needs_database(self, uri: str) -> bool:
        """Return whether :meth:`check` may ask the database about this request."""
        return uri.startswith(f"{_PREFIX}{self._layout.log_bucket}/")

    def _check_bucket(self, worker: Worker, method: str, bucket: str, query: str) -> None:
        """Of a bucket itself: that it is there, and a listing of what may be read."""
        layout = self._layout
        if bucket not in (layout.dag_bucket, layout.log_bucket):
            raise _refused()
        if method == "HEAD":
            return
        prefixes = parse_qs(query, keep_blank_values=True).get("prefix", [""])
        own = f"{layout.environment}/diag/{worker.name}/"
        allowed = f"{layout.environment}/" if bucket == layout.dag_bucket else own
        if method != "GET" or len(prefixes) != 1 or not prefixes[0].startswith(allowed):
            raise _refused()

    def _check_dags(self, method: str, key: str) -> None:
        environment = self._layout.environment
        if method not in _READS or not key.startswith((f"{environment}/", f".airbridge/{environment}/")):
            raise _refused()

    def _check_logs(self, worker: Worker, key: str) -> Job | None:
        if key.startswith(f"{self._layout.environment}/diag/{worker.name}/"):
            return None
        folder = f"{self._layout.environment}/task-logs/"
        log = _LOG.fullmatch(key, len(folder)) if key.startswith(folder) else None
        if not log:
            raise _refused()
        map_index = -1 if log["map"] is None else int(log["map"])
        key_of_job = JobKey(log["dag"], log["task"], log["run"], map_index, int(log["try"]))
        return self._edge.check_log(worker, key_of_job)


def _refused() -> Refusal:
    return Refusal(403, "s3_not_allowed", "not a bucket, prefix or method that this edge host may use")
