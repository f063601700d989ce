"""Secrets of the control plane: made once, kept in volumes, overridable by environment or file.

Each secret is a file of mode 0600 named after it. A folder is one audience: a container mounts only the
folders that its service must read, so that, say, the code that parses DAGs never sees the signing key.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airbridge.errors import AirbridgeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["SECRETS", "PublicPart", "Secret", "ensure_secrets", "read_secret"]

_TOKEN_BYTES = 48  # 64 characters, which RFC 7518, section 3.2, asks of a key for HMAC-SHA-512
_SHORTEST_TOKEN = 64
_PASSWORD_BYTES = 18  # 144 bits in 24 characters: for people to copy
_SHORTEST_PASSWORD = 8  # characters; NIST SP 800-63B, section 5.1.1
_FERNET_KEY_BYTES = 32
_MODE = 0o600


def _new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _new_fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(_FERNET_KEY_BYTES)).decode()


def _new_ed25519_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def _problem_of_token(value: str) -> str:
    if len(value) < _SHORTEST_TOKEN:
        return f"has {len(value)} characters, needs at least {_SHORTEST_TOKEN}"
    if not value.isascii() or not value.isprintable() or " " in value:
        return "holds characters that do not fit an HTTP header"
    return ""


def _problem_of_password(value: str) -> str:
    if len(value) < _SHORTEST_PASSWORD:
        return f"has {len(value)} characters, needs at least {_SHORTEST_PASSWORD}"
    return "" if value.isprintable() else "holds control characters"


def _problem_of_fernet_key(value: str) -> str:
    try:
        length = len(base64.urlsafe_b64decode(value))
    except (binascii.Error, ValueError):
        return "is not URL-safe base64"
    return "" if length == _FERNET_KEY_BYTES else f"decodes to {length} bytes, needs {_FERNET_KEY_BYTES}"


def _problem_of_ed25519_key(value: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(value.encode(), password=None)
    except (ValueError, TypeError):
        return "is not an unencrypted PEM private key"
    # RSA tokens would not fit edge_job.command (2,048 characters).
    return "" if isinstance(key, Ed25519PrivateKey) else "is not an Ed25519 key"


def _new_authority() -> str:
    from airbridge.identity.authority import Authority

    return Authority.new().text.strip()


def _problem_of_authority(value: str) -> str:
    from airbridge.identity.authority import Authority

    try:
        Authority.parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _authority_certificate(value: str) -> str:
    from airbridge.identity.authority import Authority

    return Authority.parse(value).certificate_text.strip()


@dataclass(frozen=True, slots=True)
class PublicPart:
    """What of a secret others may know: its file name, who reads it, and how it comes of the secret."""

    name: str
    audience: str
    of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret: its file name, who reads it, how it is made, and what is wrong with a given value."""

    name: str
    audiences: tuple[str, ...]
    make: Callable[[], str]
    problem_of: Callable[[str], str]
    public: PublicPart | None = None

    @property
    def variable(self) -> str:
        """Environment variable that overrides the secret, such as ``AIRBRIDGE_ADMIN_PASSWORD``."""
        return "AIRBRIDGE_" + self.name.upper().replace("-", "_")


SECRETS: tuple[Secret, ...] = (
    Secret("db-password", ("control", "postgres", "door"), _new_password, _problem_of_password),
    Secret("fernet-key", ("control", "door"), _new_fernet_key, _problem_of_fernet_key),
    Secret("session-secret", ("control",), _new_token, _problem_of_token),
    Secret("jwt-private-key", ("signing",), _new_ed25519_key, _problem_of_ed25519_key),
    Secret("internal-edge-secret", ("signing",), _new_token, _problem_of_token),
    Secret("admin-password", ("signing",), _new_password, _problem_of_password),
    # Who issues client certificates has the key, the gateway that checks them the certificate.
    Secret(
        "client-ca",
        ("issuing",),
        _new_authority,
        _problem_of_authority,
        PublicPart("client-ca.crt", "clients", _authority_certificate),
    ),
)


def ensure_secrets(root: Path, overrides: Path, environment: Mapping[str, str]) -> list[str]:
    """Make sure that every secret exists below ``root`` and obeys its override.

    The value is, in this order: the environment variable, a file of the secret's name in ``overrides``,
    what the volume holds already, a new random one.

    Returns: one line a secret that was made or changed, without its value.

    Raises:
        SettingsError: an override is unusable; every such override is named, and nothing was written.
        AirbridgeError: a secret cannot be read or written, such as on a full disk.
    """
    overrides_of = {secret: _override(secret, overrides, environment) for secret in SECRETS}
    if problems := [override.problem for override in overrides_of.values() if override.problem]:
        raise SettingsError("; ".join(problems), fix="correct these or leave them empty to have one made")
    return [line for secret, override in overrides_of.items() for line in _keep(root, secret, override)]


@dataclass(frozen=True, slots=True)
class _Override:
    """What an operator wants a secret to be (``None``: nothing), where that stands, what is wrong with it."""

    value: str | None
    source: str
    problem: str = ""


def _override(secret: Secret, overrides: Path, environment: Mapping[str, str]) -> _Override:
    value, source = environment.get(secret.variable, "").strip(), secret.variable
    if not value:
        file = overrides / secret.name
        source = f"secret file {secret.name}"
        if not file.exists():
            return _Override(None, "generated")
        try:
            value = file.read_text().strip()
        except UnicodeDecodeError:
            return _Override(None, source, f"{source} is not text")
        except OSError as error:
            return _Override(
                None, source, f"{source} cannot be read by uid {os.geteuid()} ({error.strerror or error})"
            )
        if not value:
            return _Override(None, "generated")
    problem = secret.problem_of(value)
    return _Override(value, source, f"{source} {problem}" if problem else "")


def _keep(root: Path, secret: Secret, override: _Override) -> Iterator[str]:
    paths = [root / audience / secret.name for audience in secret.audiences]
    known = next((value for path in paths if (value := _read(path))), None)
    wanted = override.value or known or secret.make()
    yield from _put(paths, wanted, override.source)
    if secret.public is not None:
        part = secret.public
        yield from _put([root / part.audience / part.name], part.of(wanted), override.source)


def _put(paths: list[Path], wanted: str, source: str) -> Iterator[str]:
    for path in paths:
        before = _read(path)
        if before != wanted:
            _write(path, wanted)
            done = f"changed ({source})" if before else f"made ({source})"
        elif stat.S_IMODE(path.stat().st_mode) != _MODE:
            path.chmod(_MODE)
            done = f"mode set to {_MODE:04o}"
        else:
            continue
        yield f"{path.parent.name}/{path.name}: {done}"


def _read(path: Path) -> str | None:
    """Return the value in the file, or ``None`` where there is no usable one."""
    try:
        return path.read_text().strip() or None
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise AirbridgeError(
            f"secret file {path} cannot be read: {error.strerror or error}",
            fix="the volume must belong to uid 50000",
        ) from error


def _write(path: Path, value: str) -> None:
    """Write whole or not at all, and on the disk before anyone relies on it."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise AirbridgeError(
            f"secret file {path} cannot be written: {error.strerror or error}",
            fix="free disk space, and let the volume belong to uid 50000",
        ) from error


def read_secret(root: Path, name: str) -> str:
    """Return the value of the secret ``name``.

    Raises:
        SettingsError: there is no such secret, or it was not made yet.
    """
    secret = next((s for s in SECRETS if s.name == name), None)
    if secret is None:
        raise SettingsError(
            f"no secret is called '{name}'", fix=f"one of {', '.join(s.name for s in SECRETS)}"
        )
    for audience in secret.audiences:
        if value := _read(root / audience / name):
            return value
    raise SettingsError(f"secret '{name}' does not exist yet", fix="start the stack once: make up")
