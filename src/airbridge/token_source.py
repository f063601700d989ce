"""Where the worker's credential comes from. Standard library only: the health check reads it too.

``CONTROL_PLANE_TOKEN`` (or its file) holds the credential itself, or a join token. A join token is traded for
a credential once, by :mod:`airbridge.edge._join`, which keeps that in the state directory; from then on it is
read from there, as long as the setting holds the same join token.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.credential import (
    JOIN_PREFIX,
    Credential,
    JoinToken,
    checked_proof,
    is_worker_name,
    new_proof,
)
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CREDENTIAL_FILE",
    "STATE_DIR",
    "TOKEN",
    "TOKEN_FILE",
    "NotJoinedError",
    "StoredCredential",
    "read_credential",
    "read_token",
    "write_whole",
]

TOKEN: Final = "CONTROL_PLANE_TOKEN"  # noqa: S105 - the name of the setting
TOKEN_FILE: Final = "CONTROL_PLANE_TOKEN_FILE"  # noqa: S105 - the name of the setting
STATE_DIR: Final = "/var/lib/airbridge"
"""Default of EDGE_STATE_DIR."""
CREDENTIAL_FILE: Final = "credential"
"""In the state directory: what a join token was traded for. The uplink reads it as well."""

_MAX_FILE_BYTES: Final = 4096
_AGAIN: Final = "copy the token again, whole, from the control plane"


class NotJoinedError(SettingsError):
    """The setting holds a join token that was not traded for a credential yet."""

    def __init__(self, token: JoinToken) -> None:
        super().__init__(
            f"worker {token.name} has not joined yet: its join token was not traded for a credential",
            fix="start edge-worker, which does it, and read its log",
        )
        self.token = token


def _fail(name: str, problem: str, fix: str) -> SettingsError:
    return SettingsError(f"{name}: {problem}", fix=fix)


def _given(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return which setting holds a token, and the text of it."""
    value, path = environ.get(TOKEN, "").strip(), environ.get(TOKEN_FILE, "").strip()
    if value and path:
        raise _fail(TOKEN, f"is set, and so is {TOKEN_FILE}", "keep one of the two and unset the other")
    name = TOKEN
    if path:
        name = TOKEN_FILE
        try:
            with Path(path).open("rb") as file:
                value = file.read(_MAX_FILE_BYTES).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise _fail(name, f"the file {path!r} is not text", "put the token, and only it, there") from None
        except OSError as error:
            fix = "mount the file that holds the token, readable by the container's user (uid 50000)"
            raise _fail(name, f"cannot read the file {path!r}: {error.strerror}", fix) from None
        if not value:
            raise _fail(
                name, f"the file {path!r} is empty", "put the token that the control plane gave you there"
            )
    if not value:
        fix = f"set it, or {TOKEN_FILE}, to the token that the control plane gave you"
        raise _fail(name, "is not set", fix)
    return name, value


def read_token(environ: Mapping[str, str]) -> Credential | JoinToken:
    """Return what ``CONTROL_PLANE_TOKEN`` or the file ``CONTROL_PLANE_TOKEN_FILE`` holds.

    :raises SettingsError: none or both are set, the file cannot be read, the text is no token, or it is of
        another worker than ``WORKER_NAME``. The message never holds any of the secret.
    """
    name, value = _given(environ)
    token: Credential | JoinToken
    try:
        token = JoinToken.parse(value) if value.startswith(JOIN_PREFIX) else Credential.parse(value)
    except ValueError:
        raise _fail(name, "is not a worker's credential (NAME.SECRET) or join token", _AGAIN) from None
    worker = environ.get("WORKER_NAME", "").strip()
    if is_worker_name(worker) and worker != token.name:
        raise _fail(
            name,
            f"is of worker {token.name}, but WORKER_NAME is {worker}",
            f"set WORKER_NAME={token.name}, or enrol the other one: make enroll NAME={worker}",
        )
    return token


def read_credential(environ: Mapping[str, str]) -> Credential:
    """Return the worker's credential, traded for a join token where that is what it was given.

    :raises NotJoinedError: it was not traded yet
    :raises SettingsError: as :func:`read_token`
    """
    token = read_token(environ)
    if isinstance(token, Credential):
        return token
    stored = StoredCredential(Path(environ.get("EDGE_STATE_DIR") or STATE_DIR))
    credential = stored.read(token)
    if credential is None:
        raise NotJoinedError(token)
    return credential


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """The credential in the state directory, and which join token it was traded for."""

    folder: Path

    @property
    def path(self) -> Path:
        """File of mode 0600 that holds the credential and nothing else."""
        return self.folder / CREDENTIAL_FILE

    @property
    def _origin(self) -> Path:
        return self.folder / f"{CREDENTIAL_FILE}.from"

    @property
    def _proof(self) -> Path:
        return self.folder / f"{CREDENTIAL_FILE}.proof"

    def proof(self, token: JoinToken) -> str:
        """Return the proof that goes with ``token``: the same one until the credential is here.

        :raises OSError: it cannot be kept
        """
        try:
            origin, _, proof = self._proof.read_text(encoding="ascii").strip().partition(" ")
            if origin == _fingerprint(token) and proof:
                return checked_proof(proof)
        except (FileNotFoundError, ValueError):
            pass  # the first time, or what a crash left half written
        proof = new_proof()
        write_whole(self._proof, f"{_fingerprint(token)} {proof}\n")
        return proof

    def read(self, token: JoinToken) -> Credential | None:
        """Return what ``token`` was traded for; ``None``: nothing yet."""
        try:
            if self._origin.read_text(encoding="ascii").strip() != _fingerprint(token):
                return None  # another join token: this host was enrolled anew
            credential = Credential.parse(self.path.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None
        return credential if credential.name == token.name else None

    def write(self, credential: Credential, token: JoinToken) -> None:
        """Keep ``credential``, whole or not at all, and on the disk before anyone relies on it."""
        # In this order: a credential without its origin is one that nobody reads.
        self._origin.unlink(missing_ok=True)
        write_whole(self.path, f"{credential.text}\n")
        write_whole(self._origin, f"{_fingerprint(token)}\n")
        self._proof.unlink(missing_ok=True)


def _fingerprint(token: JoinToken) -> str:
    return hashlib.sha256(token.text.encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, and on the disk before anyone relies on it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
