"""Asks the control plane for this host's next client certificate.

The key is made here and never leaves. The worker's health check looks every half minute whether it is time,
and starts ``airbridge-edge renew`` beside itself; a renewal that fails is tried again by the next one.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from airbridge.client_certificate import ClientCertificate, new_request
from airbridge.edge._client_certificate import current_certificate, keep_certificate
from airbridge.errors import AirbridgeError
from airbridge.token_source import STATE_DIR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.edge._control_plane import ControlPlane
    from airbridge.edge.settings import EdgeSettings

__all__ = ["ensure_certificate", "renew", "start_renewal"]

_LOCK: Final = "client.lock"
# What a database may make of a moment that was written with whole seconds.
_ROUNDED: Final = timedelta(seconds=1)

_log = structlog.get_logger("airbridge.edge.certificate")


def renew(settings: EdgeSettings, control_plane: ControlPlane) -> ClientCertificate:
    """Get the next certificate and keep it.

    :raises AirbridgeError: the control plane does not issue one, or it cannot be kept
    """
    key, request = new_request(settings.worker_name)
    held = control_plane.next_certificate(key, request)
    try:
        keep_certificate(held, settings.edge_state_dir)
    except OSError as error:
        raise AirbridgeError(
            f"the client certificate cannot be kept in {settings.edge_state_dir}: {error.strerror}",
            fix="make EDGE_STATE_DIR a volume that uid 50000 may write, with free space",
        ) from None
    _log.info(
        "this host has a new client certificate",
        worker=held.name,
        serial=held.serial,
        expires=held.not_after.isoformat(timespec="seconds"),
    )
    return held


def ensure_certificate(settings: EdgeSettings, control_plane: ControlPlane) -> None:
    """Get one if this host has none, or if it is time for the next; a failure is told and passes.

    Also while the control plane requires none: so that it can, one day, without a visit to every host.
    """
    found = current_certificate(os.environ)
    try:
        if found is not None and not found[1].is_due(datetime.now(UTC)):
            end = control_plane.certificate_end(found[1].serial)
            # A rotation ends it earlier than it says itself, and so does a newer one.
            if end is not None and end >= found[1].not_after - _ROUNDED:
                return
        renew(settings, control_plane)
    except AirbridgeError as error:
        _log.warning("no new client certificate", error=error.what, fix=error.fix)


def start_renewal(environ: Mapping[str, str]) -> bool:
    """Start a renewal beside this process, unless one is under way; returns whether it did."""
    lock = os.open(Path(environ.get("EDGE_STATE_DIR") or STATE_DIR) / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        # It inherits the lock, and outlives the health check, whose time is short. Its lines go where the
        # worker's go.
        with open("/proc/1/fd/1", "ab", buffering=0) as log:  # noqa: PTH123 - no regular file
            subprocess.Popen(
                [sys.executable, "-m", "airbridge.edge", "renew"],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
            )
        return True
    finally:
        os.close(lock)
