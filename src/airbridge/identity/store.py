"""Enrolments, secrets and join tokens of the edge workers, in the control plane's database."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg2

from airbridge.credential import Credential, JoinToken
from airbridge.errors import AirbridgeError, RefusedError
from airbridge.identity._cipher import Cipher
from airbridge.identity._principals import WORKER, Principals
from airbridge.identity._schema import SCHEMA_VERSION, migrate_schema, schema_version
from airbridge.identity.model import Allowance, Worker, check_name

if TYPE_CHECKING:
    from datetime import datetime

    from airbridge.identity.database import Database

__all__ = [
    "JOIN_LIFETIME",
    "SCHEMA_VERSION",
    "Cipher",
    "JoinRefusedError",
    "WorkerStore",
    "migrate_schema",
    "schema_version",
]

JOIN_LIFETIME: Final = timedelta(hours=1)
"""How long a join token is good: the way from one terminal to another, not longer."""


class JoinRefusedError(RefusedError):
    """A join token that is worth nothing; ``reason`` says why, for the audit log and never for the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "the join token was not accepted",
            fix="make another one on the control plane: airbridge edge join-token NAME",
        )
        self.reason = reason


def _hash(token: JoinToken) -> bytes:
    # 384 random bits: nothing that a slow hash would make harder to guess.
    return hashlib.sha256(token.text.encode()).digest()


class WorkerStore:
    """The enrolled workers. Every change is one transaction.

    Args:
        database: where the tables are; see :func:`migrate_schema`.
        cipher: what secrets are encrypted with.
    """

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._principals = Principals(WORKER, cipher)
        self._select = (
            "SELECT w.name, w.queues, w.concurrency, w.connections, w.variables,"  # noqa: S608
            " w.created_at, w.expires_at, w.revoked_at, w.last_seen,"
            f" {self._principals.secrets_column('w')} FROM airbridge.worker w"
        )

    # --- looking --------------------------------------------------------------------------------

    def find(self, name: str) -> Worker | None:
        """Return the worker, revoked and expired ones too; ``None``: nobody of this name was enrolled."""
        with self._database.cursor() as cursor:
            return self._find(cursor, name)

    def all(self) -> list[Worker]:
        """Return every worker that was ever enrolled, by name."""
        with self._database.cursor() as cursor:
            cursor.execute(f"{self._select} ORDER BY w.name")
            return [self._worker(row) for row in cursor.fetchall()]

    def mark_seen(self, name: str) -> None:
        """Note that the worker proved itself now."""
        with self._database.cursor() as cursor:
            self._principals.mark_seen(cursor, name)

    # --- changing -------------------------------------------------------------------------------

    def enroll(
        self,
        name: str,
        allowance: Allowance,
        *,
        expires_at: datetime | None = None,
        credential: Credential | None = None,
    ) -> None:
        """Enrol a worker. One that was revoked or has expired is enrolled anew; what it held stays worthless.

        :param credential: what it will hold; ``None``: it gets one for a join token
        :raises RefusedError: a worker of this name is enrolled
        """
        check_name(name)
        with self._database.cursor() as cursor:
            self._principals.take_name(cursor, name)
            try:
                cursor.execute(
                    "INSERT INTO airbridge.worker AS w"
                    " (name, queues, concurrency, connections, variables, expires_at)"
                    " VALUES (%s, %s, %s, %s, %s, %s)"
                    " ON CONFLICT (name) DO UPDATE SET queues = excluded.queues,"
                    " concurrency = excluded.concurrency, connections = excluded.connections,"
                    " variables = excluded.variables, expires_at = excluded.expires_at,"
                    " created_at = now(), revoked_at = NULL, last_seen = NULL"
                    " WHERE w.revoked_at IS NOT NULL OR w.expires_at <= now()"
                    " RETURNING name",
                    (
                        name,
                        list(allowance.queues),
                        allowance.concurrency,
                        list(allowance.connections),
                        list(allowance.variables),
                        expires_at,
                    ),
                )
            except psycopg2.IntegrityError as error:
                raise AirbridgeError(f"worker '{name}' cannot be enrolled: {error}") from error
            if cursor.fetchone() is None:
                raise RefusedError(
                    f"worker '{name}' is enrolled",
                    fix=f"airbridge edge update {name} changes what it may do; rotate gives it a new secret",
                )
            self._principals.forget_secrets(cursor, name)
            cursor.execute("DELETE FROM airbridge.join_token WHERE worker = %s AND used_at IS NULL", (name,))
            if credential is not None:
                self._principals.add_secret(cursor, credential)

    def update(self, name: str, allowance: Allowance, expires_at: datetime | None) -> None:
        """Change what a worker may do, and until when; its credential stays as it is.

        :raises RefusedError: no worker of this name is enrolled
        """
        with self._database.cursor() as cursor:
            cursor.execute(
                "UPDATE airbridge.worker SET queues = %s, concurrency = %s, connections = %s, variables = %s,"
                " expires_at = %s WHERE name = %s AND revoked_at IS NULL RETURNING name",
                (
                    list(allowance.queues),
                    allowance.concurrency,
                    list(allowance.connections),
                    list(allowance.variables),
                    expires_at,
                    name,
                ),
            )
            if cursor.fetchone() is None:
                raise self._principals.unknown(name)

    def rotate(self, name: str, overlap: timedelta) -> Credential:
        """Give a worker a new secret; the one before stays good for ``overlap``, older ones end now.

        :raises RefusedError: no worker of this name is enrolled
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
            done = self._principals.revoke(cursor, name)
            cursor.execute("DELETE FROM airbridge.join_token WHERE worker = %s AND used_at IS NULL", (name,))
            return done

    # --- joining --------------------------------------------------------------------------------

    def new_join_token(self, name: str, lifetime: timedelta = JOIN_LIFETIME) -> JoinToken:
        """Return a join token for an enrolled worker; one that was not used yet is worth nothing any more.

        :raises RefusedError: no worker of this name is enrolled
        """
        token = JoinToken.new(check_name(name))
        with self._database.cursor() as cursor:
            self._principals.lock(cursor, name)
            cursor.execute("DELETE FROM airbridge.join_token WHERE worker = %s AND used_at IS NULL", (name,))
            cursor.execute(
                "INSERT INTO airbridge.join_token (hash, worker, expires_at) VALUES (%s, %s, now() + %s)",
                (_hash(token), name, lifetime),
            )
        return token

    def join(self, token: JoinToken, client: str) -> Credential:
        """Trade a join token for the worker's credential. What the worker held before ends now.

        :param client: who asks, for the record
        :raises JoinRefusedError: unknown, used, too old, or the worker is not enrolled (any more)
        """
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT t.used_at, t.expires_at <= now(), w.revoked_at IS NOT NULL OR w.expires_at <= now()"
                " FROM airbridge.join_token t JOIN airbridge.worker w ON w.name = t.worker"
                " WHERE t.hash = %s AND t.worker = %s FOR UPDATE OF t, w",
                (_hash(token), token.name),
            )
            row = cursor.fetchone()
            if row is None:
                raise JoinRefusedError("join_token_unknown")
            used_at, too_old, ended = row
            if used_at is not None:
                raise JoinRefusedError("join_token_replayed")
            if too_old:
                raise JoinRefusedError("join_token_expired")
            if ended:
                raise JoinRefusedError("worker_not_enrolled")
            credential = Credential.new(token.name)
            cursor.execute(
                "UPDATE airbridge.join_token SET used_at = now(), used_by = %s WHERE hash = %s",
                (client[:255], _hash(token)),
            )
            self._principals.forget_secrets(cursor, token.name)
            self._principals.add_secret(cursor, credential)
        return credential

    # --- inside a transaction ---------------------------------------------------------------------

    def _find(self, cursor: Any, name: str) -> Worker | None:
        cursor.execute(f"{self._select} WHERE w.name = %s", (name,))
        row = cursor.fetchone()
        return None if row is None else self._worker(row)

    def _worker(self, row: Any) -> Worker:
        name, queues, concurrency, connections, variables, created, expires, revoked, seen, encrypted = row
        return Worker(
            name,
            Allowance(tuple(queues), concurrency, tuple(connections), tuple(variables)),
            created,
            expires,
            revoked,
            seen,
            self._principals.decrypted(encrypted),
        )
