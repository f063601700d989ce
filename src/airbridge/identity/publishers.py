"""Publishers: who may write which packages of the environment, with a credential like a worker's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airbridge.errors import RefusedError, SettingsError
from airbridge.identity._principals import PUBLISHER, Principals
from airbridge.identity.model import EVERYTHING, check_name, state_of
from airbridge.manifest import MAX_PACKAGE_CHARACTERS, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from airbridge.credential import Credential
    from airbridge.identity.database import Database
    from airbridge.identity.store import Cipher

__all__ = ["Publisher", "PublisherStore", "checked_packages"]

_MOST_PACKAGES: Final = 256


@dataclass(frozen=True, slots=True)
class Publisher:
    """An enrolled publisher."""

    name: str
    packages: tuple[str, ...]
    """Packages that it may write; ``*`` is every package: an operator's."""
    created_at: datetime
    expires_at: datetime | None = None
    """When the enrolment ends by itself; ``None``: never."""
    revoked_at: datetime | None = None
    last_seen: datetime | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """The secrets that are good now: two while they are rotated."""

    def state(self, now: datetime) -> str:
        """Return ``revoked``, ``expired``, ``rotating`` or ``enrolled``."""
        return state_of(self, now)

    def may_write(self, package: str) -> bool:
        """Return whether it may write this package."""
        return package in self.packages or (EVERYTHING in self.packages and package != "")


def checked_packages(packages: Sequence[str]) -> tuple[str, ...]:
    """Return the packages without doubles.

    :raises SettingsError: one is no name of a package, or there is none
    """
    found = tuple(dict.fromkeys(packages))
    if not found or len(found) > _MOST_PACKAGES:
        raise SettingsError(
            "a publisher writes at least one package", fix=f"--packages a,b ({_MOST_PACKAGES} at most)"
        )
    for package in found:
        if package != EVERYTHING and not (
            PACKAGE.fullmatch(package) and len(package) <= MAX_PACKAGE_CHARACTERS
        ):
            raise SettingsError(
                f"'{package}' is no name of a package", fix="words of a-z and 0-9 joined by _, or '*' for all"
            )
    return found


class PublisherStore:
    """The enrolled publishers. Every change is one transaction.

    Args:
        database: where the tables are.
        cipher: what secrets are encrypted with.
    """

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._principals = Principals(PUBLISHER, cipher)
        self._select = (
            "SELECT p.name, p.packages, p.created_at, p.expires_at, p.revoked_at, p.last_seen,"  # noqa: S608
            f" {self._principals.secrets_column('p')} FROM airbridge.publisher p"
        )

    def find(self, name: str) -> Publisher | None:
        """Return the publisher, revoked and expired ones too; ``None``: nobody of this name was enrolled."""
        with self._database.cursor() as cursor:
            cursor.execute(f"{self._select} WHERE p.name = %s", (name,))
            row = cursor.fetchone()
        return None if row is None else self._publisher(row)

    def all(self) -> list[Publisher]:
        """Return every publisher that was ever enrolled, by name."""
        with self._database.cursor() as cursor:
            cursor.execute(f"{self._select} ORDER BY p.name")
            return [self._publisher(row) for row in cursor.fetchall()]

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """Note how many seconds ago each of these publishers proved itself."""
        with self._database.cursor() as cursor:
            self._principals.mark_seen(cursor, seen)

    def enroll(
        self, credential: Credential, packages: Sequence[str], *, expires_at: datetime | None = None
    ) -> None:
        """Enrol a publisher; one that was revoked or has expired, anew, with this credential alone.

        :raises RefusedError: a publisher or a worker of this name is enrolled
        """
        name = check_name(credential.name)
        with self._database.cursor() as cursor:
            self._principals.take_name(cursor, name)
            cursor.execute(
                "INSERT INTO airbridge.publisher AS p (name, packages, expires_at) VALUES (%s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET packages = excluded.packages,"
                " expires_at = excluded.expires_at, created_at = now(), revoked_at = NULL, last_seen = NULL"
                " WHERE p.revoked_at IS NOT NULL OR p.expires_at <= now() RETURNING name",
                (name, list(packages), expires_at),
            )
            if cursor.fetchone() is None:
                raise RefusedError(
                    f"publisher '{name}' is enrolled",
                    fix=f"airbridge publisher update {name} changes its packages; rotate renews its secret",
                )
            self._principals.forget_secrets(cursor, name)
            self._principals.add_secret(cursor, credential)

    def update(self, name: str, packages: Sequence[str], expires_at: datetime | None) -> None:
        """Change what a publisher may write, and until when; its credential stays as it is.

        :raises RefusedError: no publisher of this name is enrolled
        """
        with self._database.cursor() as cursor:
            cursor.execute(
                "UPDATE airbridge.publisher SET packages = %s, expires_at = %s"
                " WHERE name = %s AND revoked_at IS NULL RETURNING name",
                (list(packages), expires_at, name),
            )
            if cursor.fetchone() is None:
                raise self._principals.unknown(name)

    def rotate(self, name: str, overlap: timedelta) -> Credential:
        """Give a publisher a new secret; the one before stays good for ``overlap``, older ones end now.

        :raises RefusedError: no publisher of this name is enrolled
        """
        check_name(name)
        with self._database.cursor() as cursor:
            return self._principals.rotate(cursor, name, overlap)

    def reencrypt(self) -> int:
        """Encrypt every secret with the newest of the cipher's keys; returns how many there are."""
        with self._database.cursor() as cursor:
            return self._principals.reencrypt(cursor)

    def revoke(self, name: str) -> bool:
        """End an enrolment; returns whether it had not ended before.

        :raises RefusedError: nobody of this name was ever enrolled
        """
        with self._database.cursor() as cursor:
            return self._principals.revoke(cursor, name)

    def _publisher(self, row: Any) -> Publisher:
        name, packages, created, expires, revoked, seen, encrypted = row
        secrets = self._principals.decrypted(encrypted)
        return Publisher(name, tuple(packages), created, expires, revoked, seen, secrets)
