"""Airflow's logging on an edge host (``[logging] logging_config_class``): task logs go to S3, none is lost.

See :mod:`airbridge.edge._log_files` for what is wrong with the way that Airflow's own S3 logging does it.
Needs Airflow; loaded by the worker and the processes that it forks.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.config_templates.airflow_local_settings import BASE_LOG_FOLDER, DEFAULT_LOGGING_CONFIG
from airflow.configuration import conf
from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO

from airbridge.edge._log_files import send_rest
from airbridge.edge._log_hook import WorkerS3Hook

if TYPE_CHECKING:
    import os

__all__ = ["LOGGING_CONFIG", "REMOTE_TASK_LOG"]

_log = logging.getLogger(__name__)


class _TaskLogs(S3RemoteLogIO):  # type: ignore[misc]
    """Sends what is new in a log, after what S3 has of it."""

    @cached_property
    def hook(self) -> WorkerS3Hook:
        """S3, as Airflow's own log handler asks it, signed by this worker."""
        return WorkerS3Hook(
            aws_conn_id=conf.get("logging", "REMOTE_LOG_CONN_ID"), transfer_config_args={"use_threads": False}
        )

    def upload(self, path: os.PathLike[str] | str, ti: Any) -> None:
        """Upload the log at ``path``, which is absolute or relative to the folder of all logs."""
        local = self.base_log_folder / path
        remote = f"{self.remote_base}/{local.relative_to(self.base_log_folder)}"
        if not send_rest(local, lambda text: self._append(text, remote)):
            _log.error("the log %s is not in S3; it stays on this host", local)

    def _append(self, text: str, remote: str) -> bool:
        text = text.removesuffix("\n")  # write() puts one between the old and the new
        try:
            if self.s3_log_exists(remote):
                # Not left to write(): it takes an old log that it cannot read for an empty one.
                text = f"{self.hook.read_key(remote)}\n{text}"
        except Exception:
            _log.exception("what S3 has of %s could not be read", remote)
            return False
        return bool(self.write(text, remote, append=False))


LOGGING_CONFIG = DEFAULT_LOGGING_CONFIG
REMOTE_TASK_LOG = _TaskLogs(
    remote_base=conf.get("logging", "remote_base_log_folder"),
    base_log_folder=BASE_LOG_FOLDER,
    delete_local_copy=False,
)
