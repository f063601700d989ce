"""What the commands about workers and those about publishers share."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from airbridge.errors import RefusedError, SettingsError
from airbridge.identity.database import Database
from airbridge.identity.store import SCHEMA_VERSION, Cipher, schema_version

__all__ = [
    "Expires",
    "Json",
    "checked_overlap",
    "duration",
    "end_of",
    "moment",
    "names",
    "open_cipher",
    "open_database",
    "print_list",
    "say",
]

_URI: Final = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_KEY: Final = "AIRFLOW__CORE__FERNET_KEY"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NEVER: Final = "never"
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


def duration(text: str) -> timedelta:
    """Return a length of time.

    :raises SettingsError: it is none
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if not match or int(match[1]) == 0:
        raise SettingsError(f"'{text}' is no length of time", fix="a number and s, m, h, d or w, such as 90d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


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
    return None if expires in (None, _NEVER) else datetime.now(UTC) + duration(str(expires))


def moment(value: datetime | None) -> str | None:
    """Return a time as listings show it."""
    return value.astimezone(UTC).isoformat(timespec="seconds") if value else None


def say(line: str) -> None:
    """To people, beside the one thing on stdout that scripts read."""
    typer.echo(line, err=True)


def print_list(what: str, rows: list[dict[str, Any]], shown: tuple[str, ...], *, as_json: bool) -> None:
    """Print a listing: JSON, a table for a terminal with the columns ``shown``, or a plain line each."""
    if as_json:
        typer.echo(json.dumps({what: rows}, indent=2))
    elif sys.stdout.isatty():
        table = Table(*(column.replace("_", " ") for column in shown), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(_text(row[column]) for column in shown))
        Console().print(table)
    else:
        for row in rows:
            fields = (f"{key}={_text(row[key])}" for key in row if key != "name")
            typer.echo(f"{row['name']} {' '.join(fields)}")


def _text(value: Any) -> str:
    return ",".join(value) or "-" if isinstance(value, list) else "-" if value is None else str(value)
