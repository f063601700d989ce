"""The credentials of dag-sync on an edge host: the worker's own, read anew for each request.

A host that joins gets them after dag-sync has started, and an operator may change them at any time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from airbridge.errors import SettingsError
from airbridge.sync.s3 import Credentials
from airbridge.token_source import TOKEN, TOKEN_FILE, NotJoinedError, read_credential

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["is_replaced", "is_waiting", "worker_credentials"]


def worker_credentials(environ: Mapping[str, str]) -> Callable[[], Credentials] | None:
    """Return what reads the worker's credential; ``None``: this is no edge host, AWS's standard way holds.

    What it returns raises :class:`airbridge.errors.SettingsError` while there is no credential (yet).
    """
    if not (environ.get(TOKEN) or environ.get(TOKEN_FILE)):
        return None

    def read() -> Credentials:
        credential = read_credential(environ)
        return Credentials(credential.name, credential.secret, "")

    return read


def is_waiting(environ: Mapping[str, str]) -> str:
    """Return what a host that joins is waiting for; empty: for nothing (any more)."""
    if worker_credentials(environ) is None:
        return ""
    try:
        read_credential(environ)
    except NotJoinedError as error:
        return error.what
    except SettingsError:
        return ""  # a pass says it, again and again
    return ""


def is_replaced(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether another file took the place of the token's on the host.

    A container that mounts a single file goes on to see the old one, which has no name left.
    """
    path = environ.get(TOKEN_FILE, "")
    try:
        return bool(path) and Path(path).stat().st_nlink == 0
    except OSError:
        return False
