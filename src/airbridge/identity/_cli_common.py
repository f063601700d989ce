"""What the commands about workers and those about publishers share."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from airbridge.errors import RefusedError, SettingsError
from airbridge.identity.database import Database
from airbridge.identity.model import duration
from airbridge.identity.store import SCHEMA_VERSION, Cipher, schema_version

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "NEVER",
    "Expires",
    "Json",
    "checked_overlap",
    "column",
    "end_of",
    "moment",
    "names",
    "open_cipher",
    "open_database",
    "print_list",
    "say",
    "text_of",
]

_URI: Final = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_KEY: Final = "AIRFLOW__CORE__FERNET_KEY"
NEVER: Final = "never"
"""The end of an enrolment that has none."""
_LONGEST_OVERLAP: Final = timedelta(days=30)  # a rotation that never ends is none

Expires = Annotated[
    str | None, typer.Option(help="The enrolment ends after this long, such as 90d; 'never' is the default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def open_database() -> Database:
    """Return the metadata database.

    :raises SettingsError: nobody says where it is
    :raises RefusedError: its tables are of another release
    """
    uri = os.environ.get(_URI, "")
    if not uri.startswith("postgresql"):
        raise SettingsError(f"{_URI} is not set to a Postgres URI", fix="run it in the control plane's image")
    database = Database.at(uri)
    connection = database.connection()
    try:
        there = schema_version(connection)
    finally:
        connection.close()
    if there != SCHEMA_VERSION:
        raise RefusedError(
            f"the worker tables are of version {there}, this release works with {SCHEMA_VERSION}",
            fix="run the control plane's init of this release: make up",
        )
    return database


def open_cipher() -> Cipher:
    """Return what secrets are encrypted with.

    :raises SettingsError: there is no key
    """
    return Cipher(os.environ.get(_KEY, ""))


def names(text: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def checked_overlap(text: str) -> timedelta:
    """Return how long an old secret stays good.

    :raises SettingsError: longer than a rotation should take, or no length of time
    """
    length = duration(text)
    if length > _LONGEST_OVERLAP:
        raise SettingsError(f"an overlap of {text} is too long", fix="30d at most")
    return length


def end_of(expires: str | None) -> datetime | None:
    """Return when an enrolment ends; ``None``: never."""
    return None if expires in (None, NEVER) else datetime.now(UTC) + duration(str(expires))


def moment(value: datetime | None) -> str | None:
    """Return a time as listings show it."""
    return value.astimezone(UTC).isoformat(timespec="seconds") if value else None


def say(line: str) -> None:
    """To people, beside the one thing on stdout that scripts read."""
    typer.echo(line, err=True)


def print_list(
    what: str, rows: list[dict[str, Any]], shown: dict[str, Callable[[dict[str, Any]], str]], *, as_json: bool
) -> None:
    """Print a listing: JSON, a table for a terminal, or a plain line each.

    :param shown: what the table's columns say of a row, by their titles
    """
    if as_json:
        typer.echo(json.dumps({what: rows}, indent=2))
    elif sys.stdout.isatty():
        table = Table(*shown, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for row in rows:
            table.add_row(*(say_of(row) for say_of in shown.values()))
        Console().print(table)
    else:
        for row in rows:
            fields = (f"{key}={text_of(row[key])}" for key in row if key != "name")
            typer.echo(f"{row['name']} {' '.join(fields)}")


def column(key: str) -> Callable[[dict[str, Any]], str]:
    """Return what a table says of a row's field as it is."""
    return lambda row: text_of(row[key])


def text_of(value: Any) -> str:
    """Return a field as listings show it."""
    return ",".join(value) or "-" if isinstance(value, list) else "-" if value is None else str(value)
