"""Airflow's logging on an edge host (``[logging] logging_config_class``).

Task logs go to S3 and none is lost: see :mod:`airbridge.edge._log_files` for what is wrong with the way that
Airflow's own S3 logging does it. While the control plane is away nothing is tried: the task has ended, and
minutes of retries would only keep its slot. :mod:`airbridge.edge.sysinfo` has such logs sent later.

Each line of a task's log carries the id of the attempt, and so does each line of the container's own log that
is about one (:mod:`airbridge.edge._correlation`); that one is JSON as well. Needs Airflow; loaded by the
worker and the processes that it forks.
"""

from __future__ import annotations

import copy
import logging
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from airflow.config_templates.airflow_local_settings import BASE_LOG_FOLDER, DEFAULT_LOGGING_CONFIG
from airflow.configuration import conf
from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO
from botocore.exceptions import ClientError

from airbridge.courier_status import read_status
from airbridge.edge._correlation import (
    add_correlation,
    attempt_in_arguments,
    learn_correlation,
    work_on,
)
from airbridge.edge._log_files import put_on_list, send_listed, send_rest
from airbridge.edge._log_hook import WorkerS3Hook
from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOGGING_CONFIG", "REMOTE_TASK_LOG", "send_late"]

_log = logging.getLogger(__name__)


class _TaskLogs(S3RemoteLogIO):  # type: ignore[misc]
    """Sends what is new in a log, after what S3 has of it."""

    processors = (learn_correlation,)
    """What each line of a task's log passes (Airflow's own extension point of remote logging)."""

    @cached_property
    def hook(self) -> WorkerS3Hook:
        """S3, as Airflow's own log handler asks it, signed by this worker."""
        return WorkerS3Hook(
            aws_conn_id=conf.get("logging", "REMOTE_LOG_CONN_ID"), transfer_config_args={"use_threads": False}
        )

    def upload(self, path: os.PathLike[str] | str, ti: Any) -> None:
        """Upload the log at ``path``, which is absolute or relative to the folder of all logs."""
        work_on(str(ti.id))  # of a task that ended before it could say so
        local = self.base_log_folder / path
        if not _is_away() and send_rest(local, self._sender_of(local)):
            return
        put_on_list(self.base_log_folder, local)
        _log.warning("the log %s is not in S3 yet; it stays on this host until it can be sent", local)

    def send_again(self, local: Path) -> bool:
        """Send the rest of a log that could not be sent when its task ended."""
        return send_rest(local, self._sender_of(local), whole_lines=True)

    def _sender_of(self, local: Path) -> Callable[[str], bool]:
        remote = f"{self.remote_base}/{local.relative_to(self.base_log_folder)}"
        return lambda text: self._append(text, remote)

    def _append(self, text: str, remote: str) -> bool:
        text = text.removesuffix("\n")  # there is one between the old and the new
        try:
            if self._create(text, remote):
                return True
            # Not left to write(): it takes an old log that it cannot read for an empty one.
            text = f"{self.hook.read_key(remote)}\n{text}"
        except Exception:
            _log.exception("what S3 has of %s could not be read, or added to", remote)
            return False
        return bool(self.write(text, remote, append=False))

    def _create(self, text: str, remote: str) -> bool:
        """Store the log where none is yet; False: there is one.

        One request instead of two, and none of the threads that the hook's own upload starts.
        """
        bucket, key = self.hook.parse_s3_url(remote)
        options = dict(self.hook.extra_args)
        if conf.getboolean("logging", "ENCRYPT_S3_LOGS"):
            options["ServerSideEncryption"] = "AES256"
        try:
            self.hook.conn.put_object(Bucket=bucket, Key=key, Body=text.encode(), IfNoneMatch="*", **options)
        except ClientError as error:
            if error.response["Error"]["Code"] == "PreconditionFailed":
                return False
            raise
        return True


def _is_away() -> bool:
    """Whether S3 need not be tried; a courier that says nothing says nothing about S3."""
    try:
        return read_status(os.environ["COURIER_URL"]).away
    except (UnreachableError, KeyError):
        return False


def send_late() -> int:
    """Send the logs that could not be sent in their time; return how many are left."""
    return send_listed(Path(BASE_LOG_FOLDER), REMOTE_TASK_LOG.send_again)


def _in_json(config: dict[str, Any]) -> dict[str, Any]:
    """Return a logging configuration whose console lines are JSON objects."""
    changed = copy.deepcopy(config)
    changed["formatters"]["json"] = {
        "()": structlog.stdlib.ProcessorFormatter,
        "pass_foreign_args": True,
        "foreign_pre_chain": [
            attempt_in_arguments,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            add_correlation,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    }
    changed["handlers"]["console"]["formatter"] = "json"
    return changed


# What is not of the standard library's logging is JSON already; see airflow_local_settings.py.
structlog.configure(processors=[add_correlation, *structlog.get_config()["processors"]])
LOGGING_CONFIG = _in_json(DEFAULT_LOGGING_CONFIG)
REMOTE_TASK_LOG = _TaskLogs(
    remote_base=conf.get("logging", "remote_base_log_folder"),
    base_log_folder=BASE_LOG_FOLDER,
    delete_local_copy=False,
)
