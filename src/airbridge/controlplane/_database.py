"""What is asked of the metadata database without importing Airflow: milliseconds instead of seconds."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg2

from airbridge.errors import AirbridgeError, SettingsError, UnreachableError

__all__ = ["connect", "first_line", "is_migrated", "migrate", "users"]

_CONNECT_TIMEOUT_S = 3
_PATIENCE_S = 120  # a Postgres that replays its log after a crash takes about a minute at most here
_PAUSE_S = 1.0
_MIGRATION_LOCK = 0x41_42_4D_49  # "ABMI"
# Written when the image is built: {version table: head revision}.
_HEADS_FILE = Path("/opt/airbridge/migration-heads.json")


def _dsn() -> str:
    uri = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "")
    if not uri.startswith("postgresql"):
        raise SettingsError(
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not set to a Postgres URI",
            fix="mount the control secrets, or set the variable",
        )
    return uri.replace("postgresql+psycopg2://", "postgresql://", 1)


def first_line(error: Exception) -> str:
    """Return what ``error`` says, without the lines in which psycopg2 quotes the statement."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def connect(patience_s: float = 0) -> Any:
    """Return a psycopg2 connection, trying for ``patience_s`` seconds.

    Raises:
        UnreachableError: Postgres did not answer in time, or refused the password.
    """
    deadline = time.monotonic() + patience_s
    waiting = False
    while True:
        try:
            return psycopg2.connect(_dsn(), connect_timeout=_CONNECT_TIMEOUT_S)
        except psycopg2.OperationalError as error:
            # A line for each address that was tried, some with a hint indented below: the last one counts.
            tried = [line for line in str(error).splitlines() if line.strip() and not line[0].isspace()]
            reason = tried[-1].strip() if tried else "no reason given"
            if "password authentication failed" in reason or time.monotonic() >= deadline:
                raise UnreachableError(
                    f"Postgres cannot be used: {reason}",
                    fix="docker compose ps postgres; docker compose logs postgres",
                ) from error
            if not waiting:
                print(f"airbridge: waiting for Postgres: {reason}", flush=True)
                waiting = True
            time.sleep(_PAUSE_S)


def is_migrated(connection: Any) -> bool:
    """Return whether every version table is at the revision that this image was built with."""
    heads: dict[str, str] = json.loads(_HEADS_FILE.read_text())
    with connection, connection.cursor() as cursor:
        for table, head in heads.items():
            cursor.execute("SELECT to_regclass(%s)", (table,))
            if cursor.fetchone()[0] is None:
                return False
            cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - our own image wrote the name
            if [row[0] for row in cursor.fetchall()] != [head]:
                return False
    return True


def migrate() -> bool:
    """Run ``airflow db migrate`` if the database needs it; returns whether it did.

    Services that start together do it one after the other, and then there is nothing left to do. The lock
    that Airflow takes itself does not keep them apart: the second fails, because a type is there already.
    """
    connection = connect(_PATIENCE_S)
    try:
        if is_migrated(connection):
            return False
        _await_turn(connection)
        if is_migrated(connection):
            return False
        _run_migration()
        return True
    finally:
        connection.close()  # and the turn is over


def _await_turn(connection: Any) -> None:
    """Take the lock of whoever migrates; it is held until the connection ends.

    Asked for again and again: a statement that waits is a transaction, and some migrations wait for those.
    """
    connection.autocommit = True
    waiting = False
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_MIGRATION_LOCK,))
            if cursor.fetchone()[0]:
                return
            if not waiting:
                print("airbridge: waiting for another service to migrate the database", flush=True)
                waiting = True
            time.sleep(_PAUSE_S)


def _run_migration() -> None:
    print("airbridge: migrating the metadata database", flush=True)
    result = subprocess.run(["airflow", "db", "migrate"], check=False)
    if result.returncode != 0:
        raise AirbridgeError(
            f"'airflow db migrate' failed with exit code {result.returncode}",
            fix="read the lines above; a database of a newer Airflow cannot be used by an older image",
        )


def users(connection: Any) -> set[str]:
    """Return the user names that exist; empty before the first migration."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ab_user')")
        if cursor.fetchone()[0] is None:
            return set()
        cursor.execute("SELECT username FROM ab_user")
        return {row[0] for row in cursor.fetchall()}
