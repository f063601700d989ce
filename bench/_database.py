"""Questions to Airflow's database while something is measured: cheap ones, and not counted as Airflow's.

One ``psql`` stays open in Postgres's own container, under a role of its own: a question costs neither a new
process nor a request to the api-server that is measured, and what pg_stat_statements says of Airflow's role
does not hold it.
"""

from __future__ import annotations

import csv
import io
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench._stack import Stack

__all__ = ["Database", "quoted", "watching"]

_ROLE = "bench"
_END = "end-of-answer"
_SET_UP = f"""
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{_ROLE}') THEN CREATE ROLE {_ROLE} LOGIN; END IF;
END $$;
GRANT pg_read_all_data, pg_read_all_stats TO {_ROLE};
GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO {_ROLE};
"""


def quoted(text: str) -> str:
    """Return ``text`` as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Database:
    """An open session."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions = questions
        self._answers = answers

    def query(self, sql: str) -> list[dict[str, str]]:
        """Return the rows of one statement, as text.

        :raises UnreachableError: Postgres refused it, or is gone
        """
        self._questions.write(f"{sql};\n\\echo {_END}\n")
        self._questions.flush()
        lines: list[str] = []
        for line in self._answers:
            if line.rstrip("\n") == _END:
                return list(csv.DictReader(io.StringIO("".join(lines))))
            lines.append(line)
        raise UnreachableError(
            "the database's session ended", fix="make bench ARGS=--keep, then look at its logs"
        )

    def number(self, sql: str) -> float:
        """Return the single value of a statement."""
        ((value,),) = (row.values() for row in self.query(sql))
        return float(value)


@contextmanager
def watching(stack: Stack) -> Iterator[Database]:
    """Open a session with the database of a stack whose Postgres has pg_stat_statements."""
    stack.query(_SET_UP)
    session = subprocess.Popen(
        [
            "docker", "exec", "--interactive", stack.containers()["postgres"],
            "psql", "--quiet", "--csv", "--no-psqlrc", "--set", "ON_ERROR_STOP=1",
            "--username", _ROLE, "--dbname", "airflow",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        yield Database(session.stdin, session.stdout)
    finally:
        if session.poll() is None:
            session.stdin.write("\\q\n")
            session.stdin.close()
        session.wait()
