"""``airbridge edge …``: who may work for this control plane, and what each may do."""

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

from airbridge.credential import Credential
from airbridge.errors import AirbridgeError, RefusedError, SettingsError
from airbridge.identity._reports import Report, reports
from airbridge.identity.database import Database
from airbridge.identity.model import Allowance, Worker, check_name
from airbridge.identity.store import JOIN_LIFETIME, SCHEMA_VERSION, Cipher, WorkerStore, schema_version

__all__ = ["app", "main"]

app = typer.Typer(
    name="airbridge",
    help="Run the control plane of AirBridge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
edge = typer.Typer(
    help="Edge workers: enrol, list, rotate, revoke. Exit codes: 0 done, 2 wrong flags or settings, "
    "3 database not reachable, 4 refused, 5 secrets of another Fernet key.",
    no_args_is_help=True,
)
app.add_typer(edge, name="edge")

_URI: Final = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_KEY: Final = "AIRFLOW__CORE__FERNET_KEY"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DEFAULT_CONCURRENCY: Final = 8  # as an edge host's own default (WORKER_CONCURRENCY)
_NEVER: Final = "never"
_AGES: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_DIGITS: Final = 8  # of a tree's hash
_DATE: Final = 10  # characters of an ISO time that are its date
_ENSURE_OVERLAP: Final = timedelta(hours=1)
_LONGEST_OVERLAP: Final = timedelta(days=30)  # a rotation that never ends is none

_Name = Annotated[str, typer.Argument(help="The worker's name: a-z, 0-9 and dashes.")]
_Connections = Annotated[
    str | None, typer.Option(help="Airflow connections that its tasks may read, with commas; '*' is all.")
]
_Variables = Annotated[
    str | None, typer.Option(help="Airflow variables that its tasks may use, with commas; '*' is all.")
]
_Expires = Annotated[
    str | None, typer.Option(help="The enrolment ends after this long, such as 90d; 'never' is the default.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def _store() -> WorkerStore:
    return WorkerStore(_database(), Cipher(os.environ.get(_KEY, "")))


def _database() -> Database:
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


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if not match or int(match[1]) == 0:
        raise SettingsError(f"'{text}' is no length of time", fix="a number and s, m, h, d or w, such as 90d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _end(expires: str | None) -> datetime | None:
    return None if expires in (None, _NEVER) else datetime.now(UTC) + _duration(str(expires))


def _say(line: str) -> None:
    """To people, beside the one thing on stdout that scripts read."""
    typer.echo(line, err=True)


def _print_token(token: str, worker: Worker, kind: str, *, as_json: bool) -> None:
    typer.echo(json.dumps({**_described(worker), "token": token, "kind": kind}) if as_json else token)


def _moment(value: datetime | None) -> str | None:
    return value.astimezone(UTC).isoformat(timespec="seconds") if value else None


def _described(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "state": worker.state(datetime.now(UTC)),
        "queues": list(worker.allowance.queues),
        "concurrency": worker.allowance.concurrency,
        "connections": list(worker.allowance.connections),
        "variables": list(worker.allowance.variables),
        "created": _moment(worker.created_at),
        "expires": _moment(worker.expires_at),
        "revoked": _moment(worker.revoked_at),
        "last_seen": _moment(worker.last_seen),
    }


def _known(store: WorkerStore, name: str) -> Worker:
    worker = store.find(check_name(name))
    if worker is None:
        raise RefusedError(
            f"no worker '{name}' is enrolled", fix=f"airbridge edge enroll {name} --queues default"
        )
    return worker


@edge.command("enroll")
def enroll_command(
    name: _Name,
    queues: Annotated[str, typer.Option(help="Queues that it may serve, with commas.")],
    concurrency: Annotated[int, typer.Option(help="Tasks at once.")] = _DEFAULT_CONCURRENCY,
    connections: _Connections = None,
    variables: _Variables = None,
    expires: _Expires = None,
    credential: Annotated[
        bool, typer.Option("--credential", help="Print the credential itself instead of a join token.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Enrol a worker, and print a join token: good for one credential, once, for an hour."""
    store = _store()
    allowance = Allowance.checked(_list(queues), concurrency, _list(connections), _list(variables))
    held = Credential.new(check_name(name)) if credential else None
    store.enroll(name, allowance, expires_at=_end(expires), credential=held)
    token = held.text if held else store.new_join_token(name).text
    kind = "credential" if held else "join token"
    _say(f"worker {name} enrolled, queues {','.join(allowance.queues)}; its {kind} is shown this once")
    _print_token(token, _known(store, name), kind, as_json=as_json)


@edge.command("update")
def update_command(
    name: _Name,
    queues: Annotated[str | None, typer.Option(help="Queues that it may serve, with commas.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks at once.")] = None,
    connections: _Connections = None,
    variables: _Variables = None,
    expires: _Expires = None,
) -> None:
    """Change what a worker may do; what is not given stays, and so does its credential."""
    store = _store()
    worker = _known(store, name)
    allowance = _changed(worker.allowance, queues, concurrency, connections, variables)
    store.update(name, allowance, worker.expires_at if expires is None else _end(expires))
    _say(f"worker {name} updated; in force within a second")


def _changed(
    before: Allowance,
    queues: str | None,
    concurrency: int | None,
    connections: str | None,
    variables: str | None,
) -> Allowance:
    return Allowance.checked(
        before.queues if queues is None else _list(queues),
        before.concurrency if concurrency is None else concurrency,
        before.connections if connections is None else _list(connections),
        before.variables if variables is None else _list(variables),
    )


@edge.command("ensure")
def ensure_command(
    name: _Name,
    queues: Annotated[str | None, typer.Option(help="Queues that it may serve, with commas.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks at once.")] = None,
    connections: _Connections = None,
    variables: _Variables = None,
    as_json: _Json = False,
) -> None:
    """For scripts: print the credential on stdin (one line) again if it is good for NAME, else make one.

    Enrols a worker that is not; changes what it may do to what is given. Never takes back a revocation.
    """
    store = _store()
    # A line, not all there is: Docker sometimes loses the end of the input of `exec` and `run`.
    given = "" if sys.stdin.isatty() else sys.stdin.readline().strip()
    worker = store.find(check_name(name))
    if worker is not None and worker.revoked_at is not None:
        raise RefusedError(f"worker '{name}' was revoked", fix=f"airbridge edge enroll {name} if it may work")
    if worker is None or worker.state(datetime.now(UTC)) == "expired":
        allowance = Allowance.checked(
            _list(queues) or ("default",),
            concurrency or _DEFAULT_CONCURRENCY,
            _list(connections),
            _list(variables),
        )
        credential = Credential.new(name)
        store.enroll(name, allowance, credential=credential)
        _say(f"worker {name} enrolled, queues {','.join(allowance.queues)}")
    else:
        allowance = _changed(worker.allowance, queues or None, concurrency, connections, variables)
        if allowance != worker.allowance:
            store.update(name, allowance, worker.expires_at)
            _say(f"worker {name} updated")
        held = next((text for text in worker.secrets if f"{name}.{text}" == given), None)
        if held is not None:
            credential = Credential(name, held)
        else:
            # What it held stays good for a while, so that a host that is made anew can finish its tasks.
            credential = store.rotate(name, _ENSURE_OVERLAP)
            _say(f"worker {name} has a new credential")
    _print_token(credential.text, _known(store, name), "credential", as_json=as_json)


def _reported(report: Report | None) -> dict[str, Any]:
    """What the worker said with its last heartbeat; nothing before the first."""
    return {
        "live": report is not None and report.live,
        "worker_state": report.state if report else None,
        "last_heartbeat": _moment(report.heartbeat) if report else None,
        "jobs": report.jobs if report else None,
        "airbridge_version": report.airbridge_version if report else None,
        "airflow_version": report.airflow_version if report else None,
        "edge_provider_version": report.edge_provider_version if report else None,
        "dag_tree": report.dag_tree if report else None,
        "dag_current": report.dag_current if report else None,
    }


@edge.command("list")
def list_command(as_json: _Json = False) -> None:
    """Every worker that was ever enrolled: what it may do, its versions and DAGs, when it was last seen."""
    database = _database()
    said = reports(database)
    workers = WorkerStore(database, Cipher(os.environ.get(_KEY, ""))).all()
    rows = [{**_described(worker), **_reported(said.get(worker.name))} for worker in workers]
    if as_json:
        typer.echo(json.dumps({"workers": rows}, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            fields = (f"{key}={_text(row[key])}" for key in row if key != "name")
            typer.echo(f"{row['name']} {' '.join(fields)}")


def _text(value: Any) -> str:
    return ",".join(value) or "-" if isinstance(value, list) else "-" if value is None else str(value)


def _print_table(rows: list[dict[str, Any]]) -> None:
    """For a terminal of 100 columns; what does not fit is in ``--json``."""
    columns = ("name", "state", "queues", "tasks", "versions", "DAGs", "seen", "expires")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['state']}{', live' if row['live'] else ''}",
            _text(row["queues"]),
            f"{row['jobs'] or 0}/{row['concurrency']}",
            _versions(row),
            _dags(row),
            _ago(row["last_heartbeat"] or row["last_seen"]),
            (row["expires"] or _NEVER)[:_DATE],
        )
    Console().print(table)


def _versions(row: dict[str, Any]) -> str:
    """AirBridge, Airflow and edge provider."""
    names = ("airbridge_version", "airflow_version", "edge_provider_version")
    return " ".join(row[name] for name in names if row[name]) or "-"


def _dags(row: dict[str, Any]) -> str:
    """The first digits of the tree, which tell two of them apart, and whether it is the newest."""
    if not row["dag_tree"]:
        return "-"
    mark = {True: " current", False: " older"}.get(row["dag_current"], "")
    return f"{row['dag_tree'][:_DIGITS]}{mark}"


def _ago(moment: str | None) -> str:
    if moment is None:
        return _NEVER
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    unit, length = next(((unit, length) for unit, length in _AGES if seconds >= length), _AGES[-1])
    return f"{seconds // length} {unit} ago"


@edge.command("rotate")
def rotate_command(
    name: _Name,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays good, such as 1h.")] = "1h",
    as_json: _Json = False,
) -> None:
    """Print a new credential; the old one stays good for a while, so that no task is lost."""
    length = _duration(overlap)
    if length > _LONGEST_OVERLAP:
        raise SettingsError(f"an overlap of {overlap} is too long", fix="30d at most")
    store = _store()
    token = store.rotate(name, length).text
    _say(f"worker {name} has a new credential; put it into its token file within {overlap}")
    _print_token(token, _known(store, name), "credential", as_json=as_json)


@edge.command("revoke")
def revoke_command(name: _Name) -> None:
    """End an enrolment: within a second, nothing that the worker holds opens anything."""
    done = _store().revoke(check_name(name))
    _say(f"worker {name} revoked" if done else f"worker {name} was revoked before")


@edge.command("join-token")
def join_token_command(name: _Name, as_json: _Json = False) -> None:
    """Print a join token for an enrolled worker. Joining ends whatever the worker held before."""
    store = _store()
    token = store.new_join_token(name).text
    _say(f"join token for worker {name}, good once and for {JOIN_LIFETIME.total_seconds() / 60:.0f} minutes")
    _print_token(token, _known(store, name), "join token", as_json=as_json)


@edge.command("reencrypt")
def reencrypt_command() -> None:
    """For a change of the Fernet key: encrypt all secrets with the first of the keys that are set."""
    _say(f"{_store().reencrypt()} secrets of edge workers encrypted with the newest key")


def main() -> None:
    """Run the command line; an expected failure is one line and its exit code."""
    try:
        app()
    except AirbridgeError as error:
        typer.echo(f"airbridge: {error}", err=True)
        raise SystemExit(error.exit_code) from None
