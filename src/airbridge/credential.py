"""What an edge worker shows the control plane: its credential, or the join token that it trades for one.

::

    north-1.kZ3…                 a credential: the worker's name, a dot, its secret
    join_north-1.Qm7…            a join token: good for one credential, once, for a short time

A name holds neither ``_`` nor ``.``, so that the two are never taken for each other. Standard library only:
the worker's health check reads it every few seconds.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

__all__ = [
    "JOIN_PREFIX",
    "WORKER_NAME",
    "Credential",
    "JoinToken",
    "checked_proof",
    "is_worker_name",
    "new_proof",
]

WORKER_NAME: Final = "[a-z0-9][a-z0-9-]{0,62}"
"""Pattern of a worker's name: a DNS label, because it is the host name of the worker's container as well."""

JOIN_PREFIX: Final = "join_"

_SECRET_BYTES: Final = 48  # 64 characters, which RFC 7518, section 3.2, asks of a key for HMAC-SHA-512
_NAME = re.compile(WORKER_NAME)
# What token_urlsafe() makes. No shorter one: the secret is an HMAC key of 512 bits' worth of text.
_SECRET = re.compile(r"[A-Za-z0-9_-]{64}")


def is_worker_name(text: str) -> bool:
    """Return whether a worker may be called so."""
    return _NAME.fullmatch(text) is not None


def _split(text: str) -> tuple[str, str]:
    name, dot, secret = text.partition(".")
    if not dot or not is_worker_name(name) or not _SECRET.fullmatch(secret):
        raise ValueError("is not <worker name>.<secret>")
    return name, secret


def _new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def new_proof() -> str:
    """Return a random secret that a joining host sends with its join token.

    Who sends both again is the same host, which did not get the answer.
    """
    return _new_secret()


def checked_proof(text: str) -> str:
    """Return ``text``, which may be empty.

    :raises ValueError: it is not what :func:`new_proof` makes
    """
    if text and not _SECRET.fullmatch(text):
        raise ValueError("is no proof")
    return text


@dataclass(frozen=True, slots=True)
class Credential:
    """A worker's own name and secret."""

    name: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls, name: str) -> Self:
        """Make one with a new random secret."""
        return cls(name, _new_secret())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        :raises ValueError: it is none; the message does not repeat it
        """
        return cls(*_split(text))

    @property
    def text(self) -> str:
        """What is written into a token file."""
        return f"{self.name}.{self.secret}"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a new worker gives once for its credential."""

    name: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls, name: str) -> Self:
        """Make one with a new random secret."""
        return cls(name, _new_secret())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        :raises ValueError: it is none; the message does not repeat it
        """
        if not text.startswith(JOIN_PREFIX):
            raise ValueError(f"does not begin with {JOIN_PREFIX}")
        return cls(*_split(text.removeprefix(JOIN_PREFIX)))

    @property
    def text(self) -> str:
        """What is written into a token file."""
        return f"{JOIN_PREFIX}{self.name}.{self.secret}"
