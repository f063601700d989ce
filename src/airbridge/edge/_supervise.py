"""Runs one attempt at a task, as ``airflow.sdk.execution_time.supervisor.supervise`` (Task SDK 1.0.4) does.

Three things differ:

* The end of the task's process wakes the wait for it. Upstream hears of the end of its pipes only: when these
  close a moment before the process is gone, it sleeps for ``MIN_HEARTBEAT_INTERVAL`` (5 s), in which the task
  holds its slot.
* The report of the start counts as the first heartbeat; upstream sends one right after it.
* The client of the Execution API loads no trust store for plain HTTP to a neighbour: 30 to 50 ms a task. Its
  connection is kept for the next attempt of the same supervisor.

Needs Airflow.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import psutil
import structlog
from airflow.sdk import __version__ as sdk_version
from airflow.sdk.api.client import API_VERSION, BearerAuth, Client, add_correlation_id, raise_on_4xx_5xx
from airflow.sdk.execution_time.secrets_masker import reset_secrets_masker
from airflow.sdk.execution_time.supervisor import (
    ActivitySubprocess,
    _configure_logging,
    ensure_secrets_backend_loaded,
    supervise,
)

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecuteTask

__all__ = ["supervise_task"]

_CONNECTIONS: Final = httpx.Limits(max_keepalive_connections=1, max_connections=10)  # as supervise() has it

_log = structlog.get_logger(logger_name="supervisor")


class _ProcessEnd:
    """Becomes readable when a process ends. Selectors take it for a file."""

    def __init__(self, pid: int) -> None:
        self._file = os.fdopen(os.pidfd_open(pid))

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()  # nothing the second time


class _Attempt(ActivitySubprocess):  # type: ignore[misc]
    """An attempt whose supervisor wakes up when the process ends, and lives on after it."""

    _end: _ProcessEnd | None = None

    def _register_pipe_readers(self, *arguments: Any, **named: Any) -> None:
        super()._register_pipe_readers(*arguments, **named)
        # Where the kernel has no such thing, or the process is gone, it is noticed as upstream does.
        with contextlib.suppress(OSError):
            self._end = _ProcessEnd(self.pid)
            self.selector.register(self._end, selectors.EVENT_READ, (_has_ended, self.selector.unregister))

    def wait(self) -> int:
        """Return the exit code of the process, with nothing left of it: upstream leaves that to its own end.

        A process that could not be supervised to its end is killed, because it may be tried again.
        """
        try:
            return int(super().wait())
        except BaseException:
            with contextlib.suppress(psutil.Error):
                self._process.kill()
                self._process.wait()
            raise
        finally:
            self.stdin.close()
            if self._end is not None:
                self._end.close()

    def _on_child_started(self, *arguments: Any, **named: Any) -> None:
        super()._on_child_started(*arguments, **named)
        self._last_heartbeat_attempt = self._last_successful_heartbeat


def _has_ended(_: _ProcessEnd) -> bool:
    return False  # there is no more to come


class _NeighbourClient(Client):  # type: ignore[misc]
    """The Task SDK's client, for the plain HTTP between a worker and its courier.

    ``airflow.sdk.api.client.Client.__init__`` reads the whole trust store for every task, whatever the
    address; all else is as there.
    """

    def __init__(self, server: str, token: str) -> None:
        python = ".".join(map(str, sys.version_info[:3]))
        httpx.Client.__init__(
            self,
            base_url=server,
            auth=BearerAuth(token),
            headers={
                "user-agent": f"apache-airflow-task-sdk/{sdk_version} (Python/{python})",
                "airflow-api-version": API_VERSION,
            },
            event_hooks={
                "response": [self._update_auth, raise_on_4xx_5xx],
                "request": [add_correlation_id],
            },
            transport=_kept_connections(),
            trust_env=False,
        )


@functools.cache
def _kept_connections() -> httpx.HTTPTransport:
    # Of plain HTTP there is nothing to verify.
    return httpx.HTTPTransport(limits=_CONNECTIONS, verify=False, trust_env=False)


def supervise_task(workload: ExecuteTask, server: str) -> int:
    """Run an attempt to its end and return the exit code of its process.

    :param server: address of the Execution API
    """
    if not server.startswith("http://"):
        return int(
            supervise(
                ti=workload.ti,
                dag_rel_path=workload.dag_rel_path,
                bundle_info=workload.bundle_info,
                token=workload.token,
                server=server,
                log_path=workload.log_path,
            )
        )
    client = _NeighbourClient(server, workload.token)
    started = time.monotonic()
    logger, log_file = _configure_logging(workload.log_path, client)
    with contextlib.closing(log_file):
        ensure_secrets_backend_loaded()
        reset_secrets_masker()
        attempt: _Attempt = _Attempt.start(
            dag_rel_path=workload.dag_rel_path,
            what=workload.ti,
            client=client,
            logger=logger,
            bundle_info=workload.bundle_info,
        )
        code = attempt.wait()
        duration = time.monotonic() - started
        _log.info("Task finished", exit_code=code, duration=duration, final_state=attempt.final_state)
    return code
