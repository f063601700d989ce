"""Entry of the edge worker's container: everything that must be right first, then ``exec``.

The stock ``airflow edge worker`` takes this process over, so that signals reach it and nothing else
stays in memory. To it, SIGINT means drain (finish what runs, take nothing new) and SIGTERM means
kill every task; a container must therefore be stopped with SIGINT.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_never, wait_random_exponential

from airbridge.edge._airflow_env import airflow_environment, pid_file, write_private_token
from airbridge.edge._control_plane import ControlPlane, Registration, local_versions
from airbridge.edge._join import trade
from airbridge.edge._presence import Presence
from airbridge.edge._registration import claim_name
from airbridge.edge._renewal import ensure_certificate
from airbridge.edge.settings import load_settings
from airbridge.errors import AirbridgeError, UnreachableError
from airbridge.retry_log import retry_warning
from airbridge.sync.store import current_tree

if TYPE_CHECKING:
    from types import FrameType

    from airbridge.credential import JoinToken
    from airbridge.edge._control_plane import Joined
    from airbridge.edge.settings import EdgeSettings

__all__ = ["launch", "worker_command"]

_RETRY_FIRST_S: Final = 1.0
# The longest pause between two tries; random below it, so that a fleet does not come back as one.
_RETRY_LONGEST_S: Final = 30.0
_STORE_POLL_S: Final = 0.5

_log = structlog.get_logger("airbridge.edge.launch")


class _Patient:
    """The control plane, asked until it answers. A refusal is an answer."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._retrying = Retrying(
            retry=retry_if_exception_type(UnreachableError),
            wait=wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_LONGEST_S),
            stop=stop_never,
            before_sleep=retry_warning(_log, "waiting for the control plane"),
        )

    def check_versions(self) -> None:
        """See :meth:`ControlPlane.check_versions`."""
        self._retrying(self._control_plane.check_versions)

    def check_enrolment(self) -> None:
        """See :meth:`ControlPlane.check_enrolment`."""
        self._retrying(self._control_plane.check_enrolment)

    def join(self, token: JoinToken, proof: str, key: str, request: str) -> Joined:
        """See :meth:`ControlPlane.join`."""
        return self._retrying(self._control_plane.join, token, proof, key, request)

    def registration(self) -> Registration | None:
        """See :meth:`ControlPlane.registration`."""
        return self._retrying(self._control_plane.registration)

    def sign_off(self, state: str) -> None:
        """See :meth:`ControlPlane.sign_off`."""
        self._retrying(self._control_plane.sign_off, state)


def _wait_for_dags(store: Path) -> None:
    """Return once dag-sync has filled the store: a task that finds no DAG fails."""
    if current_tree(store) is not None:
        return
    _log.warning(
        "waiting for dag-sync: the DAG store is empty",
        store=str(store),
        fix="see the log of dag-sync; run diag",
    )
    while current_tree(store) is None:
        time.sleep(_STORE_POLL_S)


def worker_command(settings: EdgeSettings, *, restarted: bool = False) -> list[str]:
    """Return the command line of the edge worker; the provider's program lies beside this Python.

    :param restarted: the worker before was this host's own, and is dead
    """
    program = (
        [str(Path(sys.executable).parent / "airflow"), "edge", "worker"]
        if settings.worker_runner == "stock"
        else [
            *(sys.executable, "-m", "airbridge.edge", "work"),
            *("--courier", settings.courier_url),
            *(["--restarted"] if restarted else []),
        ]
    )
    return [
        *program,
        "--edge-hostname",
        settings.worker_name,
        "--queues",
        ",".join(settings.worker_queues),
        "--concurrency",
        str(settings.worker_concurrency),
    ]


class _Stopped(BaseException):
    """The container is being stopped before the worker took over. No Exception: nobody may handle it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number).name


def _stop(number: int, _frame: FrameType | None) -> None:
    # Must not log: the signal may have come in the middle of a log line, under the logger's lock.
    raise _Stopped(number)


def _become_worker(settings: EdgeSettings, *, restarted: bool) -> NoReturn:
    environment = airflow_environment(
        settings, os.environ, write_private_token(settings.token, settings.worker_name)
    )
    # Process ids repeat in a container: a worker that was killed may have had this very one, and the
    # stock worker refuses to start over its own number. The lock says that the file's owner is gone.
    pid_file(environment).unlink(missing_ok=True)
    command = worker_command(settings, restarted=restarted)
    _log.info(
        "starting the edge worker",
        worker=settings.worker_name,
        queues=settings.worker_queues,
        concurrency=settings.worker_concurrency,
        runner=settings.worker_runner,
        control_plane=settings.control_plane_url,
        drain_timeout_s=settings.worker_drain_timeout,
    )
    sys.stdout.flush()
    try:
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise AirbridgeError(
            f"cannot run {command[0]}: {error.strerror}", fix="rebuild the edge image"
        ) from None


def launch() -> NoReturn:
    """Wait until this host may work, then become the edge worker.

    :raises AirbridgeError: settings, token, version or name stand against it; see its exit code
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        _launch()
    except _Stopped as stop:
        _log.info("stopped before the worker started", signal=stop.signal)
        raise SystemExit(0) from None


def _launch() -> NoReturn:
    settings = load_settings()
    presence = Presence(settings.edge_state_dir, settings.worker_name)
    presence.acquire()
    if settings.join_token is not None:
        with ControlPlane(settings, local_versions()) as control_plane:
            trade(settings.join_token, _Patient(control_plane).join, settings.edge_state_dir)
        settings = load_settings()
    with ControlPlane(settings, local_versions()) as control_plane:
        patient = _Patient(control_plane)
        # First, so that a wrong token is named at once, whatever else does not work because of it.
        patient.check_versions()
        patient.check_enrolment()
        ensure_certificate(settings, control_plane)
        _wait_for_dags(settings.dag_store)
        restarted = claim_name(
            patient,
            presence,
            name=settings.worker_name,
            heartbeat_interval=settings.edge_heartbeat_interval,
        )
    presence.forget()
    _become_worker(settings, restarted=restarted)
