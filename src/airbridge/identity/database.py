"""A few connections to the metadata database, kept open and shared by threads."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg2

from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Database"]


class Database:
    """Hands out cursors, each in a transaction of its own.

    Args:
        connect: opens a psycopg2 connection.
        kept: how many idle connections stay open.
    """

    def __init__(self, connect: Callable[[], Any], kept: int = 4) -> None:
        self._connect = connect
        self._kept = kept
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    @classmethod
    def at(cls, uri: str, kept: int = 4) -> Database:
        """Return the database at a Postgres URI, SQLAlchemy's way of writing one included."""
        dsn = uri.replace("postgresql+psycopg2://", "postgresql://", 1)
        return cls(lambda: psycopg2.connect(dsn, connect_timeout=3, application_name="airbridge"), kept)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        """Yield a cursor; commit at the end, roll back when anything is raised.

        :raises UnreachableError: the database does not answer
        """
        connection = self._take()
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            connection.close()
            # A restart of the database breaks every connection that waits here, not this one alone.
            self.close()
            raise _unreachable(error) from error
        except BaseException:
            self._give_back(connection)
            raise
        else:
            self._give_back(connection)

    @contextlib.contextmanager
    def look(self) -> Iterator[Any]:
        """Yield a cursor for one SELECT, a transaction of its own: that saves the two round trips around it.

        :raises UnreachableError: the database does not answer
        """
        connection = self._take()
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
            connection.autocommit = False
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            connection.close()
            self.close()
            raise _unreachable(error) from error
        except BaseException:
            connection.close()  # in the middle of nobody knows what
            raise
        else:
            self._give_back(connection)

    def connection(self) -> Any:
        """Open a connection that is the caller's own.

        :raises UnreachableError: the database does not answer
        """
        try:
            return self._connect()
        except psycopg2.Error as error:
            raise _unreachable(error) from error

    def close(self) -> None:
        """Close what is idle; the next cursor opens a connection again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.connection()

    def _give_back(self, connection: Any) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < self._kept:
                self._idle.append(connection)
                return
        connection.close()


def _unreachable(error: Exception) -> UnreachableError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UnreachableError(f"Postgres cannot be used: {reason}", fix="docker compose ps postgres")
