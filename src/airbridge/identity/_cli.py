"""``airbridge``: who may work for this control plane and publish to it, and what each may do."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from airbridge.credential import Credential
from airbridge.errors import AirbridgeError, RefusedError, SettingsError
from airbridge.identity._cli_common import (
    NEVER,
    Expires,
    Json,
    checked_overlap,
    column,
    end_of,
    moment,
    names,
    open_cipher,
    open_database,
    print_list,
    say,
)
from airbridge.identity._publisher_cli import publisher
from airbridge.identity._reports import Report, reports
from airbridge.identity.authority import AUTHORITY_FILE, Authority, lifetime, load_authority
from airbridge.identity.model import Allowance, Worker, check_name
from airbridge.identity.publishers import PublisherStore
from airbridge.identity.store import JOIN_LIFETIME, WorkerStore

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

_DEFAULT_CONCURRENCY: Final = 8  # as an edge host's own default (WORKER_CONCURRENCY)
_ISSUING: Final = Path("/secrets/issuing")  # where compose.yaml mounts the client CA
_AGES: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_DIGITS: Final = 8  # of a tree's hash
_DATE: Final = 10  # characters of an ISO time that are its date
_ENSURE_OVERLAP: Final = timedelta(hours=1)

_Name = Annotated[str, typer.Argument(help="The worker's name: a-z, 0-9 and dashes.")]
_Connections = Annotated[
    str | None, typer.Option(help="Airflow connections that its tasks may read, with commas; '*' is all.")
]
_Variables = Annotated[
    str | None, typer.Option(help="Airflow variables that its tasks may use, with commas; '*' is all.")
]


def _store() -> WorkerStore:
    return WorkerStore(open_database(), open_cipher())


def _print_token(token: str, worker: Worker, kind: str, *, as_json: bool) -> None:
    typer.echo(json.dumps({**_described(worker), "token": token, "kind": kind}) if as_json else token)


def _described(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "state": worker.state(datetime.now(UTC)),
        "queues": list(worker.allowance.queues),
        "concurrency": worker.allowance.concurrency,
        "connections": list(worker.allowance.connections),
        "variables": list(worker.allowance.variables),
        "created": moment(worker.created_at),
        "expires": moment(worker.expires_at),
        "revoked": moment(worker.revoked_at),
        "last_seen": moment(worker.last_seen),
        "certificate_expires": moment(worker.certificates[0].ends_at if worker.certificates else None),
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
    expires: Expires = None,
    credential: Annotated[
        bool, typer.Option("--credential", help="Print the credential itself instead of a join token.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Enrol a worker, and print a join token: good for one credential, once, for an hour."""
    store = _store()
    allowance = Allowance.checked(names(queues), concurrency, names(connections), names(variables))
    held = Credential.new(check_name(name)) if credential else None
    store.enroll(name, allowance, expires_at=end_of(expires), credential=held)
    token = held.text if held else store.new_join_token(name).text
    kind = "credential" if held else "join token"
    say(f"worker {name} enrolled, queues {','.join(allowance.queues)}; its {kind} is shown this once")
    _print_token(token, _known(store, name), kind, as_json=as_json)


@edge.command("update")
def update_command(
    name: _Name,
    queues: Annotated[str | None, typer.Option(help="Queues that it may serve, with commas.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks at once.")] = None,
    connections: _Connections = None,
    variables: _Variables = None,
    expires: Expires = None,
) -> None:
    """Change what a worker may do; what is not given stays, and so does its credential."""
    store = _store()
    worker = _known(store, name)
    allowance = _changed(worker.allowance, queues, concurrency, connections, variables)
    store.update(name, allowance, worker.expires_at if expires is None else end_of(expires))
    say(f"worker {name} updated; in force within a second")


def _changed(
    before: Allowance,
    queues: str | None,
    concurrency: int | None,
    connections: str | None,
    variables: str | None,
) -> Allowance:
    return Allowance.checked(
        before.queues if queues is None else names(queues),
        before.concurrency if concurrency is None else concurrency,
        before.connections if connections is None else names(connections),
        before.variables if variables is None else names(variables),
    )


@edge.command("ensure")
def ensure_command(
    name: _Name,
    queues: Annotated[str | None, typer.Option(help="Queues that it may serve, with commas.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks at once.")] = None,
    connections: _Connections = None,
    variables: _Variables = None,
    as_json: Json = False,
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
            names(queues) or ("default",),
            concurrency or _DEFAULT_CONCURRENCY,
            names(connections),
            names(variables),
        )
        credential = Credential.new(name)
        store.enroll(name, allowance, credential=credential)
        say(f"worker {name} enrolled, queues {','.join(allowance.queues)}")
    else:
        allowance = _changed(worker.allowance, queues or None, concurrency, connections, variables)
        if allowance != worker.allowance:
            store.update(name, allowance, worker.expires_at)
            say(f"worker {name} updated")
        held = next((text for text in worker.secrets if f"{name}.{text}" == given), None)
        if held is not None:
            credential = Credential(name, held)
        else:
            # What it held stays good for a while, so that a host that is made anew can finish its tasks.
            credential = store.rotate(name, _ENSURE_OVERLAP)
            say(f"worker {name} has a new credential")
    _print_token(credential.text, _known(store, name), "credential", as_json=as_json)


def _reported(report: Report | None) -> dict[str, Any]:
    """What the worker said with its last heartbeat; nothing before the first."""
    return {
        "live": report is not None and report.live,
        "worker_state": report.state if report else None,
        "last_heartbeat": moment(report.heartbeat) if report else None,
        "jobs": report.jobs if report else None,
        "airbridge_version": report.airbridge_version if report else None,
        "airflow_version": report.airflow_version if report else None,
        "edge_provider_version": report.edge_provider_version if report else None,
        "dag_tree": report.dag_tree if report else None,
        "dag_current": report.dag_current if report else None,
    }


@edge.command("list")
def list_command(as_json: Json = False) -> None:
    """Every worker that was ever enrolled: what it may do, its versions and DAGs, when it was last seen."""
    database = open_database()
    said = reports(database)
    workers = WorkerStore(database, open_cipher()).all()
    rows = [{**_described(worker), **_reported(said.get(worker.name))} for worker in workers]
    # For a terminal of 100 columns; what does not fit is in --json.
    shown = {
        "name": column("name"),
        "state": lambda row: f"{row['state']}{', live' if row['live'] else ''}",
        "queues": column("queues"),
        "tasks": lambda row: f"{row['jobs'] or 0}/{row['concurrency']}",
        "versions": _versions,
        "DAGs": _dags,
        "seen": lambda row: _ago(row["last_heartbeat"] or row["last_seen"]),
        "expires": lambda row: (row["expires"] or NEVER)[:_DATE],
    }
    print_list("workers", rows, shown, as_json=as_json)


def _versions(row: dict[str, Any]) -> str:
    """AirBridge, Airflow and edge provider."""
    kinds = ("airbridge_version", "airflow_version", "edge_provider_version")
    return " ".join(row[kind] for kind in kinds if row[kind]) or "-"


def _dags(row: dict[str, Any]) -> str:
    """The first digits of the tree, which tell two of them apart, and whether it is the newest."""
    if not row["dag_tree"]:
        return "-"
    mark = {True: " current", False: " older"}.get(row["dag_current"], "")
    return f"{row['dag_tree'][:_DIGITS]}{mark}"


def _ago(when: str | None) -> str:
    if when is None:
        return NEVER
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()))
    unit, length = next(((unit, length) for unit, length in _AGES if seconds >= length), _AGES[-1])
    return f"{seconds // length} {unit} ago"


@edge.command("rotate")
def rotate_command(
    name: _Name,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays good, such as 1h.")] = "1h",
    as_json: Json = False,
) -> None:
    """Print a new credential; the old one stays good for a while, so that no task is lost."""
    store = _store()
    token = store.rotate(name, checked_overlap(overlap)).text
    say(f"worker {name} has a new credential; put it into its token file within {overlap}")
    _print_token(token, _known(store, name), "credential", as_json=as_json)


@edge.command("revoke")
def revoke_command(name: _Name) -> None:
    """End an enrolment: within a second, nothing that the worker holds opens anything."""
    done = _store().revoke(check_name(name))
    say(f"worker {name} revoked" if done else f"worker {name} was revoked before")


@edge.command("join-token")
def join_token_command(name: _Name, as_json: Json = False) -> None:
    """Print a join token for an enrolled worker. Joining ends whatever the worker held before."""
    store = _store()
    token = store.new_join_token(name).text
    say(f"join token for worker {name}, good once and for {JOIN_LIFETIME.total_seconds() / 60:.0f} minutes")
    _print_token(token, _known(store, name), "join token", as_json=as_json)


@edge.command("certificate")
def certificate_command(
    name: _Name,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Print nothing while the worker has a good one.")
    ] = False,
) -> None:
    """Print a new client certificate with its key, for a host that cannot ask for one itself (yet).

    Hosts that join or are connected make their own keys and renew by themselves. The certificate before
    this one stays good for ten minutes.
    """
    store, authority = _store(), _authority()
    worker = _known(store, name)
    if if_needed and worker.certificates:
        ends = _described(worker)["certificate_expires"]
        say(f"worker {name} has a client certificate, good until {ends}")
        return
    issued, held = authority.issue_with_key(name, lifetime(os.environ))
    store.add_certificate(issued)
    say(f"client certificate for worker {name}, good until {issued.not_after.isoformat(timespec='seconds')}")
    typer.echo(held.text, nl=False)


def _authority() -> Authority:
    authority = load_authority(_ISSUING)
    if authority is None:
        raise SettingsError(
            f"there is no client CA at {_ISSUING / AUTHORITY_FILE}",
            fix="run it in the container of api-server or init, after make up",
        )
    return authority


@edge.command("reencrypt")
def reencrypt_command() -> None:
    """For a change of the Fernet key: encrypt all secrets with the first of the keys that are set."""
    count = _store().reencrypt() + PublisherStore(open_database(), open_cipher()).reencrypt()
    say(f"{count} secrets of edge workers and publishers encrypted with the newest key")


app.add_typer(publisher, name="publisher")


def main() -> None:
    """Run the command line; an expected failure is one line and its exit code."""
    try:
        app()
    except AirbridgeError as error:
        typer.echo(f"airbridge: {error}", err=True)
        raise SystemExit(error.exit_code) from None
