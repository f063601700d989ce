"""Enrolments, secrets and join tokens of the edge workers, in the control plane's database."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg2

from airbridge.credential import Credential, JoinToken
from airbridge.errors import AirbridgeError, RefusedError
from airbridge.identity._cipher import Cipher
from airbridge.identity._principals import WORKER, Principals
from airbridge.identity._schema import CHANGES_CHANNEL, SCHEMA_VERSION, migrate_schema, schema_version
from airbridge.identity.model import Allowance, HeldCertificate, Worker, check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.identity.database import Database
    from airbridge.identity.model import IssuedCertificate

__all__ = [
    "CHANGES_CHANNEL",
    "JOIN_LIFETIME",
    "JOIN_REPEAT",
    "SCHEMA_VERSION",
    "Cipher",
    "JoinRefusedError",
    "WorkerStore",
    "migrate_schema",
    "schema_version",
]

JOIN_LIFETIME: Final = timedelta(hours=1)
"""How long a join token is good: the way from one terminal to another, not longer."""

# How long the client certificate before the newest stays good: connections that are open still show it.
_CERTIFICATE_OVERLAP: Final = timedelta(minutes=10)
# How long the record of a certificate outlives it.
_CERTIFICATES_KEPT: Final = timedelta(days=90)
JOIN_REPEAT: Final = timedelta(minutes=10)
"""How long the host that joined may ask again with the same join token: an answer was lost, or it crashed."""


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


def _proof_hash(proof: str) -> bytes:
    return hashlib.sha256(proof.encode()).digest()


def _is_proof(proof: str, known: Any) -> bool:
    return known is not None and hmac.compare_digest(_proof_hash(proof), bytes(known))


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
            f" {self._principals.secrets_column('w')},"
            " ARRAY(SELECT c.serial || ' ' || extract(epoch FROM c.ends_at)"
            " FROM airbridge.client_certificate c"
            " WHERE c.worker = w.name AND c.ends_at > now() ORDER BY c.issued_at DESC, c.ends_at DESC)"
            " FROM airbridge.worker w"
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

    def names(self) -> frozenset[str]:
        """Return the name of every worker that was ever enrolled; cheap, for asking often."""
        with self._database.cursor() as cursor:
            cursor.execute("SELECT name FROM airbridge.worker")
            return frozenset(name for (name,) in cursor.fetchall())

    def revision(self) -> int:
        """Return a number that differs from an earlier one when an enrolment has changed since."""
        with self._database.cursor() as cursor:
            return self._principals.revision(cursor)

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """Note how many seconds ago each of these workers proved itself."""
        with self._database.cursor() as cursor:
            self._principals.mark_seen(cursor, seen)

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
            self._end_certificates(cursor, name)
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

        Its client certificates end with the secret before.

        :raises RefusedError: no worker of this name is enrolled
        """
        check_name(name)
        with self._database.cursor() as cursor:
            credential = self._principals.rotate(cursor, name, overlap)
            # Its host asks for the next one when it starts with the new secret.
            cursor.execute(
                "UPDATE airbridge.client_certificate SET ends_at = least(ends_at, now() + %s)"
                " WHERE worker = %s",
                (overlap, name),
            )
        return credential

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
            self._end_certificates(cursor, name)
            cursor.execute("DELETE FROM airbridge.join_token WHERE worker = %s AND used_at IS NULL", (name,))
            return done

    # --- client certificates ----------------------------------------------------------------------

    def add_certificate(self, issued: IssuedCertificate) -> None:
        """Record a client certificate, which makes it good; the one before ends a little later.

        :raises RefusedError: no worker of this name is enrolled
        """
        with self._database.cursor() as cursor:
            self._principals.lock(cursor, issued.name)
            self._add_certificate(cursor, issued)

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

    def join(
        self, token: JoinToken, client: str, proof: str = "", issued: IssuedCertificate | None = None
    ) -> Credential:
        """Trade a join token for the worker's credential. What the worker held before ends now.

        The same host may ask again for a while, because an answer can be lost on its way.

        :param client: who asks, for the record
        :param proof: a secret of the joining host's own; whoever shows it again is that host
        :param issued: its client certificate, recorded with it
        :raises JoinRefusedError: unknown, used, too old, or the worker is not enrolled (any more)
        """
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT t.used_at, t.expires_at <= now(), w.revoked_at IS NOT NULL OR w.expires_at <= now(),"
                " t.used_at > now() - %s, t.proof, t.secret"
                " FROM airbridge.join_token t JOIN airbridge.worker w ON w.name = t.worker"
                " WHERE t.hash = %s AND t.worker = %s FOR UPDATE OF t, w",
                (JOIN_REPEAT, _hash(token), token.name),
            )
            row = cursor.fetchone()
            if row is None:
                raise JoinRefusedError("join_token_unknown")
            used_at, too_old, ended, recent, known_proof, secret = row
            if used_at is not None:
                if ended or not (recent and proof and _is_proof(proof, known_proof)):
                    raise JoinRefusedError("join_token_replayed")
                given = self._given(cursor, token.name, secret)
                if issued is not None:
                    self._add_certificate(cursor, issued)
                return given
            if too_old:
                raise JoinRefusedError("join_token_expired")
            if ended:
                raise JoinRefusedError("worker_not_enrolled")
            credential = Credential.new(token.name)
            self._principals.forget_secrets(cursor, token.name)
            number = self._principals.add_secret(cursor, credential)
            cursor.execute(
                "UPDATE airbridge.join_token SET used_at = now(), used_by = %s, proof = %s, secret = %s"
                " WHERE hash = %s",
                (client[:255], _proof_hash(proof) if proof else None, number, _hash(token)),
            )
            self._end_certificates(cursor, token.name)
            if issued is not None:
                self._add_certificate(cursor, issued)
        return credential

    def _given(self, cursor: Any, name: str, secret: int | None) -> Credential:
        """Return what a join token was traded for, unless that has been replaced or has ended since."""
        cursor.execute(
            "SELECT encrypted FROM airbridge.worker_secret WHERE id = %s AND worker = %s AND ends_at IS NULL",
            (secret, name),
        )
        row = cursor.fetchone()
        if row is None:
            raise JoinRefusedError("join_token_replayed")
        return Credential(name, self._principals.decrypted([row[0]])[0])

    # --- inside a transaction ---------------------------------------------------------------------

    def _find(self, cursor: Any, name: str) -> Worker | None:
        cursor.execute(f"{self._select} WHERE w.name = %s", (name,))
        row = cursor.fetchone()
        return None if row is None else self._worker(row)

    def _worker(self, row: Any) -> Worker:
        (*enrolment, encrypted, held) = row
        name, queues, concurrency, connections, variables, created, expires, revoked, seen = enrolment
        return Worker(
            name,
            Allowance(tuple(queues), concurrency, tuple(connections), tuple(variables)),
            created,
            expires,
            revoked,
            seen,
            self._principals.decrypted(encrypted),
            tuple(_held(text) for text in held),
        )

    @staticmethod
    def _end_certificates(cursor: Any, name: str) -> None:
        cursor.execute(
            "UPDATE airbridge.client_certificate SET ends_at = now() WHERE worker = %s AND ends_at > now()",
            (name,),
        )

    @staticmethod
    def _add_certificate(cursor: Any, issued: IssuedCertificate) -> None:
        cursor.execute(
            "UPDATE airbridge.client_certificate SET ends_at = least(ends_at, now() + %s) WHERE worker = %s",
            (_CERTIFICATE_OVERLAP, issued.name),
        )
        cursor.execute(
            "DELETE FROM airbridge.client_certificate WHERE worker = %s AND not_after < now() - %s",
            (issued.name, _CERTIFICATES_KEPT),
        )
        cursor.execute(
            "INSERT INTO airbridge.client_certificate (serial, worker, not_after, ends_at)"
            " VALUES (%s, %s, %s, %s)",
            (issued.serial, issued.name, issued.not_after, issued.not_after),
        )


def _held(text: str) -> HeldCertificate:
    serial, _, ends = text.partition(" ")
    return HeldCertificate(serial, datetime.fromtimestamp(float(ends), UTC))
