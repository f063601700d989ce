"""``airbridge publisher …``: who may publish DAGs, and of which packages."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from airbridge.credential import Credential
from airbridge.errors import RefusedError
from airbridge.identity._cli_common import (
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
from airbridge.identity.model import check_name
from airbridge.identity.publishers import Publisher, PublisherStore, checked_packages

__all__ = ["publisher"]

publisher = typer.Typer(
    help="Publishers of DAGs: enrol, list, rotate, revoke. Exit codes: 0 done, 2 wrong flags or settings, "
    "3 database not reachable, 4 refused, 5 secrets of another Fernet key.",
    no_args_is_help=True,
)

_SHOWN: Final = {
    "name": column("name"),
    "state": column("state"),
    "packages": column("packages"),
    "last seen": column("last_seen"),
    "expires": column("expires"),
}
_ENSURE_OVERLAP: Final = timedelta(hours=1)

_Name = Annotated[str, typer.Argument(help="The publisher's name: a-z, 0-9 and dashes.")]
_PACKAGES_HELP: Final = "Packages that it may write, with commas; '*' is every package of the environment."


def _store() -> PublisherStore:
    return PublisherStore(open_database(), open_cipher())


def _described(found: Publisher) -> dict[str, Any]:
    return {
        "name": found.name,
        "state": found.state(datetime.now(UTC)),
        "packages": list(found.packages),
        "created": moment(found.created_at),
        "expires": moment(found.expires_at),
        "revoked": moment(found.revoked_at),
        "last_seen": moment(found.last_seen),
    }


def _known(store: PublisherStore, name: str) -> Publisher:
    found = store.find(check_name(name))
    if found is None:
        raise RefusedError(
            f"no publisher '{name}' is enrolled", fix=f"airbridge publisher enroll {name} --packages a,b"
        )
    return found


def _print_credential(credential: Credential, found: Publisher, *, as_json: bool) -> None:
    typer.echo(json.dumps({**_described(found), "token": credential.text}) if as_json else credential.text)


@publisher.command("enroll")
def enroll_command(
    name: _Name,
    packages: Annotated[str, typer.Option(help=_PACKAGES_HELP)],
    expires: Expires = None,
    as_json: Json = False,
) -> None:
    """Enrol a publisher, and print its credential: NAME.SECRET, access key id and secret access key of S3."""
    store = _store()
    credential = Credential.new(check_name(name))
    store.enroll(credential, checked_packages(names(packages)), expires_at=end_of(expires))
    say(f"publisher {name} enrolled, packages {packages}; its credential is shown this once")
    _print_credential(credential, _known(store, name), as_json=as_json)


@publisher.command("update")
def update_command(
    name: _Name,
    packages: Annotated[str | None, typer.Option(help=_PACKAGES_HELP)] = None,
    expires: Expires = None,
) -> None:
    """Change what a publisher may write; what is not given stays, and so does its credential."""
    store = _store()
    found = _known(store, name)
    wanted = found.packages if packages is None else checked_packages(names(packages))
    store.update(name, wanted, found.expires_at if expires is None else end_of(expires))
    say(f"publisher {name} updated; in force within a second")


@publisher.command("ensure")
def ensure_command(
    name: _Name,
    packages: Annotated[str, typer.Option(help=_PACKAGES_HELP)],
    as_json: Json = False,
) -> None:
    """For scripts: print the credential on stdin (one line) again if it is good for NAME, else make one.

    Enrols a publisher that is not; changes what it may write to what is given. Never takes back a revocation.
    """
    store = _store()
    # A line, not all there is: Docker sometimes loses the end of the input of `exec` and `run`.
    given = "" if sys.stdin.isatty() else sys.stdin.readline().strip()
    wanted = checked_packages(names(packages))
    found = store.find(check_name(name))
    if found is not None and found.revoked_at is not None:
        raise RefusedError(
            f"publisher '{name}' was revoked", fix=f"airbridge publisher enroll {name} if it may publish"
        )
    if found is None or found.state(datetime.now(UTC)) == "expired":
        credential = Credential.new(name)
        store.enroll(credential, wanted)
        say(f"publisher {name} enrolled")
    else:
        if wanted != found.packages:
            store.update(name, wanted, found.expires_at)
        held = next((text for text in found.secrets if f"{name}.{text}" == given), None)
        credential = Credential(name, held) if held is not None else store.rotate(name, _ENSURE_OVERLAP)
    _print_credential(credential, _known(store, name), as_json=as_json)


@publisher.command("list")
def list_command(as_json: Json = False) -> None:
    """Every publisher that was ever enrolled, and how it is."""
    print_list("publishers", [_described(found) for found in _store().all()], _SHOWN, as_json=as_json)


@publisher.command("rotate")
def rotate_command(
    name: _Name,
    overlap: Annotated[str, typer.Option(help="How long the old secret stays good, such as 1h.")] = "1h",
    as_json: Json = False,
) -> None:
    """Print a new credential; the old one stays good for a while."""
    store = _store()
    credential = store.rotate(name, checked_overlap(overlap))
    say(f"publisher {name} has a new credential; the old one stays good for {overlap}")
    _print_credential(credential, _known(store, name), as_json=as_json)


@publisher.command("revoke")
def revoke_command(name: _Name) -> None:
    """End an enrolment: within a second, nothing that the publisher holds opens anything."""
    done = _store().revoke(check_name(name))
    say(f"publisher {name} revoked" if done else f"publisher {name} was revoked before")
