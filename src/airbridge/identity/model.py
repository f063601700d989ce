"""What the control plane knows about one edge worker, and how any enrolment is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from airbridge.credential import WORKER_NAME, is_worker_name
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = [
    "EVERYTHING",
    "MAX_CONCURRENCY",
    "Allowance",
    "HeldCertificate",
    "IssuedCertificate",
    "Worker",
    "check_name",
    "duration",
    "state_of",
]

EVERYTHING: Final = "*"
"""In a list of connections or variables: all of them. Said on purpose, never a default."""

MAX_CONCURRENCY: Final = 256
"""The most that an edge host's own settings take as well (WORKER_CONCURRENCY)."""

_QUEUE = re.compile(r"[A-Za-z0-9_.-]+")
# The edge provider stores str(list_of_queues) in a column of this many characters.
_QUEUES_COLUMN: Final = 256
# Airflow's own limit of the names of connections and variables.
_LONGEST_NAME: Final = 250
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration(text: str) -> timedelta:
    """Return the length of time that ``text`` says, such as ``90d``.

    :raises SettingsError: it says none
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if not match or int(match[1]) == 0:
        raise SettingsError(f"'{text}' is no length of time", fix="a number and s, m, h, d or w, such as 90d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def check_name(name: str) -> str:
    """Return ``name``.

    :raises SettingsError: no worker or publisher may be called so
    """
    if not is_worker_name(name):
        raise SettingsError(
            f"'{name}' is no name of a worker or publisher",
            fix=f"a-z, 0-9 and dashes, 63 at most ({WORKER_NAME})",
        )
    return name


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a worker may do; checked by :meth:`checked`, enforced by the control plane."""

    queues: tuple[str, ...]
    concurrency: int
    connections: tuple[str, ...] = ()
    """Airflow connections that its tasks may read; ``*`` is all of them."""
    variables: tuple[str, ...] = ()
    """Airflow variables that its tasks may read and write; ``*`` is all of them."""

    @staticmethod
    def checked(
        queues: Sequence[str],
        concurrency: int,
        connections: Sequence[str] = (),
        variables: Sequence[str] = (),
    ) -> Allowance:
        """Return an allowance without doubles.

        :raises SettingsError: a name or number is none
        """
        allowance = Allowance(
            tuple(dict.fromkeys(queues)),
            concurrency,
            tuple(dict.fromkeys(connections)),
            tuple(dict.fromkeys(variables)),
        )
        if not allowance.queues:
            raise SettingsError("a worker without a queue would never work", fix="--queues default")
        for queue in allowance.queues:
            if not _QUEUE.fullmatch(queue):
                raise SettingsError(f"'{queue}' is no name of a queue", fix="letters, digits, _ . and -")
        if len(str(list(allowance.queues))) > _QUEUES_COLUMN:
            raise SettingsError(
                f"too many queues: Airflow keeps {_QUEUES_COLUMN} characters of their names for a worker",
                fix="use fewer or shorter names",
            )
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise SettingsError(
                f"concurrency {concurrency} is no number of tasks", fix=f"give 1 to {MAX_CONCURRENCY}"
            )
        for name in (*allowance.connections, *allowance.variables):
            if not name or len(name) > _LONGEST_NAME or not name.isprintable():
                raise SettingsError(
                    f"'{name[:32]}' is no name of a connection or variable", fix="separate names with commas"
                )
        return allowance

    def allows_connection(self, name: str) -> bool:
        """Return whether tasks of the worker may read this connection."""
        return name in self.connections or EVERYTHING in self.connections

    def allows_variable(self, name: str) -> bool:
        """Return whether tasks of the worker may use this variable."""
        return name in self.variables or EVERYTHING in self.variables


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A client certificate as it was signed, before anyone holds it."""

    name: str
    serial: str
    """Decimal, as the gateway reports it."""
    not_before: datetime
    not_after: datetime
    certificate: str
    """PEM."""


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """A client certificate on record."""

    serial: str
    ends_at: datetime
    """Its expiry, or earlier when a newer one took its place."""


@dataclass(frozen=True, slots=True)
class Worker:
    """An enrolled worker."""

    name: str
    allowance: Allowance
    created_at: datetime
    expires_at: datetime | None = None
    """When the enrolment ends by itself; ``None``: never."""
    revoked_at: datetime | None = None
    last_seen: datetime | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """The secrets that are good now: none before it has joined, two while they are rotated."""
    certificates: tuple[HeldCertificate, ...] = ()
    """The client certificates that had not ended when this was read, the newest first."""

    def state(self, now: datetime) -> str:
        """Return ``revoked``, ``expired``, ``waiting`` (to join), ``rotating`` or ``enrolled``."""
        return state_of(self, now)

    def holds_certificate(self, serial: str, now: datetime) -> bool:
        """Return whether the client certificate with this serial number is one of the worker's, and good."""
        return any(held.serial == serial and now < held.ends_at for held in self.certificates)


class _Enrolled(Protocol):
    """What every kind of principal has."""

    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def revoked_at(self) -> datetime | None: ...
    @property
    def secrets(self) -> tuple[str, ...]: ...


def state_of(principal: _Enrolled, now: datetime) -> str:
    """Return in a word how an enrolment is."""
    if principal.revoked_at is not None:
        return "revoked"
    if principal.expires_at is not None and principal.expires_at <= now:
        return "expired"
    return ("waiting", "enrolled", "rotating")[min(len(principal.secrets), 2)]
