"""Who may ask S3 for what. Whatever no rule allows is refused.

An edge worker reads the DAGs of its environment and what trees are made of, and reads and writes the logs of
attempts that it has or had a part of, and its own diag folder. A publisher reads the DAGs of its environment,
sees the earlier versions of its own packages, and writes below these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.identity.jobs import JobKey, had_part
from airbridge.identity.model import Worker
from airbridge.s3door._errors import S3Error, access_denied
from airbridge.s3door._operation import Action

if TYPE_CHECKING:
    from airbridge.identity.jobs import JobLookup
    from airbridge.identity.publishers import Publisher
    from airbridge.s3door._operation import Operation

__all__ = ["Layout", "Rules"]

_READS: Final = frozenset({Action.READ, Action.READ_VERSION})
# [logging] log_filename_template of Airflow 3.0.4.
_LOG: Final = re.compile(
    r"dag_id=(?P<dag>[^/]+)/run_id=(?P<run>[^/]+)/task_id=(?P<task>[^/]+)/"
    r"(?:map_index=(?P<map>[0-9]{1,9})/)?attempt=(?P<try>[0-9]{1,9})\.log"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in S3."""

    dag_bucket: str
    log_bucket: str
    environment: str

    @property
    def dags(self) -> str:
        """Prefix of the environment's packages."""
        return f"{self.environment}/"

    @property
    def trees(self) -> str:
        """Prefix of what trees are made of, and of which ones DAG runs need."""
        return f".airbridge/{self.environment}/"


class Rules:
    """The rules of S3. :meth:`check` may ask the database and block: call it in a thread."""

    def __init__(self, layout: Layout, jobs: JobLookup) -> None:
        self._layout = layout
        self._jobs = jobs

    def needs_database(self, operation: Operation) -> bool:
        """Return whether :meth:`check` may ask the database about this operation."""
        return operation.bucket == self._layout.log_bucket and operation.key != ""

    def check(self, principal: Worker | Publisher, operation: Operation) -> None:
        """Make sure that ``principal`` may ask for ``operation``.

        :raises S3Error: it may not
        """
        if operation.action is Action.HEAD_BUCKET:
            allowed = operation.bucket in self._buckets(principal)
        elif isinstance(principal, Worker):
            allowed = self._worker_may(principal, operation)
        else:
            allowed = self._publisher_may(principal, operation)
        if not allowed:
            raise _refused()

    def check_key(self, publisher: Worker | Publisher, key: str) -> None:
        """Make sure that a key which stands in a body may be deleted.

        :raises S3Error: it may not
        """
        if isinstance(publisher, Worker) or not self._is_own(publisher, key):
            raise _refused()

    def _buckets(self, principal: Worker | Publisher) -> tuple[str, ...]:
        layout = self._layout
        both = (layout.dag_bucket, layout.log_bucket)
        return both if isinstance(principal, Worker) else both[:1]

    def _worker_may(self, worker: Worker, operation: Operation) -> bool:
        layout, action, key = self._layout, operation.action, operation.key
        if operation.bucket == layout.dag_bucket:
            return (action is Action.LIST and operation.prefix.startswith(layout.dags)) or (
                action in _READS and key.startswith((layout.dags, layout.trees))
            )
        if operation.bucket != layout.log_bucket:
            return False
        diag = f"{layout.environment}/diag/{worker.name}/"
        if action is Action.LIST:
            return operation.prefix.startswith(diag)
        return action in {Action.READ, Action.WRITE} and (
            key.startswith(diag) or self._is_own_log(worker, key)
        )

    def _is_own_log(self, worker: Worker, key: str) -> bool:
        """Whether the key is that of a log; one of an attempt that this worker had no part of is refused."""
        folder = f"{self._layout.environment}/task-logs/"
        log = _LOG.fullmatch(key, len(folder)) if key.startswith(folder) else None
        if not log:
            return False
        map_index = -1 if log["map"] is None else int(log["map"])
        attempt = JobKey(log["dag"], log["task"], log["run"], map_index, int(log["try"]))
        if not had_part(self._jobs, attempt, self._jobs.job(attempt), worker.name):
            # The same for an attempt of somebody else and for one that there never was.
            raise access_denied("This worker has no such job.", "job_not_yours")
        return True

    def _publisher_may(self, publisher: Publisher, operation: Operation) -> bool:
        layout, action, key = self._layout, operation.action, operation.key
        if operation.bucket != layout.dag_bucket:
            return False
        readable = (layout.dags, layout.trees)
        if action in {Action.LIST, Action.READ}:
            return (operation.prefix if action is Action.LIST else key).startswith(readable)
        if action is Action.LIST_VERSIONS:
            return self._is_own(publisher, operation.prefix)
        if action is Action.DELETE_MANY:
            return True  # of nothing yet: the keys stand in the body, see check_key()
        own = action in {Action.READ_VERSION, Action.WRITE, Action.DELETE, Action.COPY}
        return own and self._is_own(publisher, key) and self._may_copy(publisher, operation)

    def _may_copy(self, publisher: Publisher, operation: Operation) -> bool:
        """Whether it may read what it copies; true where nothing is copied."""
        source = operation.source
        if source is None:
            return True
        if source.bucket != self._layout.dag_bucket:
            return False
        # Earlier versions of other teams' packages are not its business.
        return self._is_own(publisher, source.key) or (
            not source.version and source.key.startswith(self._layout.dags)
        )

    def _is_own(self, publisher: Publisher, key: str) -> bool:
        package, slash, _ = key.removeprefix(self._layout.dags).partition("/")
        return key.startswith(self._layout.dags) and slash != "" and publisher.may_write(package)


def _refused() -> S3Error:
    return access_denied("Not a bucket, a prefix or an operation that this credential may use.")
