"""What workers and publishers have in common in the database: a name, up to two secrets, and an end.

Functions of one transaction each: the stores of the two kinds open it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airbridge.credential import Credential
from airbridge.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airbridge.identity._cipher import Cipher

__all__ = ["PUBLISHER", "WORKER", "Kind", "Principals"]

# Any constant: names are given out one after the other, so that no two kinds get the same one.
_NAMES_LOCK: Final = 0x41_42_4E_4D  # "ABNM"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of principal: its word is the name of its tables and of their column."""

    word: str
    command: str
    """What ``airbridge`` calls the commands about it."""

    @property
    def table(self) -> str:
        """Table of the principals."""
        return f"airbridge.{self.word}"

    @property
    def secrets(self) -> str:
        """Table of their secrets."""
        return f"airbridge.{self.word}_secret"


WORKER: Final = Kind("worker", "edge")
PUBLISHER: Final = Kind("publisher", "publisher")
_KINDS: Final = (WORKER, PUBLISHER)


class Principals:
    """The principals of one kind.

    Args:
        kind: which.
        cipher: what secrets are encrypted with.
    """

    def __init__(self, kind: Kind, cipher: Cipher) -> None:
        self._kind = kind
        self._cipher = cipher

    # S608 throughout: the words of a kind are ours, values are parameters.

    def secrets_column(self, alias: str) -> str:
        """Return the SQL of the encrypted secrets that are good now, for a SELECT of the principals."""
        return (
            f"ARRAY(SELECT s.encrypted FROM {self._kind.secrets} s"  # noqa: S608
            f" WHERE s.{self._kind.word} = {alias}.name AND (s.ends_at IS NULL OR s.ends_at > now())"
            " ORDER BY s.id DESC LIMIT 2)"
        )

    def decrypted(self, encrypted: list[str]) -> tuple[str, ...]:
        """Return the secrets that :meth:`secrets_column` selected."""
        return tuple(self._cipher.decrypt(secret) for secret in encrypted)

    @staticmethod
    def revision(cursor: Any) -> int:
        """Return a number that differs from an earlier one when any enrolment has changed since."""
        cursor.execute("SELECT number FROM airbridge.revision")
        return int(cursor.fetchone()[0])

    def take_name(self, cursor: Any, name: str) -> None:
        """Make sure that no principal of another kind has this name: it is the access key id of both.

        :raises RefusedError: one has
        """
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_NAMES_LOCK,))
        for other in _KINDS:
            if other != self._kind:
                cursor.execute(f"SELECT 1 FROM {other.table} WHERE name = %s", (name,))  # noqa: S608
                if cursor.fetchone() is not None:
                    raise RefusedError(f"a {other.word} is called '{name}'", fix="choose another name")

    def lock(self, cursor: Any, name: str) -> None:
        """Hold the principal's row.

        :raises RefusedError: no principal of this name is enrolled
        """
        cursor.execute(
            f"SELECT 1 FROM {self._kind.table} WHERE name = %s AND revoked_at IS NULL"  # noqa: S608
            " AND (expires_at IS NULL OR expires_at > now()) FOR UPDATE",
            (name,),
        )
        if cursor.fetchone() is None:
            raise self.unknown(name)

    def mark_seen(self, cursor: Any, seen: Mapping[str, float]) -> None:
        """Note how many seconds ago each of these proved itself; names of others change nothing."""
        cursor.execute(
            f"UPDATE {self._kind.table} p SET last_seen = now() - s.ago * interval '1 second'"  # noqa: S608
            " FROM unnest(%s::text[], %s::float8[]) s (name, ago) WHERE p.name = s.name",
            (list(seen), list(seen.values())),
        )

    def forget_secrets(self, cursor: Any, name: str) -> None:
        """End whatever the principal holds."""
        cursor.execute(f"DELETE FROM {self._kind.secrets} WHERE {self._kind.word} = %s", (name,))  # noqa: S608

    def add_secret(self, cursor: Any, credential: Credential) -> int:
        """Give the principal a secret more; returns its number."""
        cursor.execute(
            f"INSERT INTO {self._kind.secrets} ({self._kind.word}, encrypted)"  # noqa: S608
            " VALUES (%s, %s) RETURNING id",
            (credential.name, self._cipher.encrypt(credential.secret)),
        )
        return int(cursor.fetchone()[0])

    def rotate(self, cursor: Any, name: str, overlap: timedelta) -> Credential:
        """Give the principal a new secret; the one before stays good for ``overlap``, older ones end now.

        :raises RefusedError: no principal of this name is enrolled
        """
        credential = Credential.new(name)
        secrets, column = self._kind.secrets, self._kind.word
        self.lock(cursor, name)
        cursor.execute(
            f"DELETE FROM {secrets} WHERE {column} = %s AND id <>"  # noqa: S608
            f" (SELECT max(id) FROM {secrets} WHERE {column} = %s)",
            (name, name),
        )
        cursor.execute(
            f"UPDATE {secrets} SET ends_at = now() + %s WHERE {column} = %s",  # noqa: S608
            (overlap, name),
        )
        self.add_secret(cursor, credential)
        return credential

    def reencrypt(self, cursor: Any) -> int:
        """Encrypt every secret with the newest of the cipher's keys; returns how many there are."""
        cursor.execute(f"SELECT id, encrypted FROM {self._kind.secrets} FOR UPDATE")  # noqa: S608
        rows = cursor.fetchall()
        for number, stored in rows:
            cursor.execute(
                f"UPDATE {self._kind.secrets} SET encrypted = %s WHERE id = %s",  # noqa: S608
                (self._cipher.renew(stored), number),
            )
        return len(rows)

    def revoke(self, cursor: Any, name: str) -> bool:
        """End an enrolment; returns whether it had not ended before.

        :raises RefusedError: nobody of this name was ever enrolled
        """
        cursor.execute(f"SELECT revoked_at FROM {self._kind.table} WHERE name = %s FOR UPDATE", (name,))  # noqa: S608
        row = cursor.fetchone()
        if row is None:
            raise self.unknown(name)
        cursor.execute(
            f"UPDATE {self._kind.table} SET revoked_at = now() WHERE name = %s AND revoked_at IS NULL",  # noqa: S608
            (name,),
        )
        return row[0] is None

    def unknown(self, name: str) -> RefusedError:
        """Return what is said of a name that nobody has."""
        word, command = self._kind.word, self._kind.command
        return RefusedError(
            f"no {word} '{name}' is enrolled",
            fix=f"airbridge {command} list shows who is; airbridge {command} enroll enrols one",
        )
