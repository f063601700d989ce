"""Publishers on a real Postgres, and their command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airbridge.credential import Credential
from airbridge.errors import RefusedError, SettingsError
from airbridge.identity.model import Allowance
from airbridge.identity.publishers import PublisherStore, checked_packages
from airbridge.identity.store import Cipher, WorkerStore

if TYPE_CHECKING:
    from airbridge.identity.database import Database


@pytest.fixture
def publishers(database: Database, fernet_key: str) -> PublisherStore:
    return PublisherStore(database, Cipher(fernet_key))


def _enrolled(publishers: PublisherStore, name: str = "team-a", *packages: str) -> Credential:
    credential = Credential.new(name)
    publishers.enroll(credential, packages or ("orders",))
    return credential


def test_enrolled_publisher_is_found_with_its_packages_and_secret(publishers: PublisherStore) -> None:
    credential = _enrolled(publishers, "team-a", "orders", "reporting")
    found = publishers.find("team-a")
    assert found is not None
    assert (found.packages, found.secrets) == (("orders", "reporting"), (credential.secret,))
    assert found.state(datetime.now(UTC)) == "enrolled"
    assert [found.may_write(package) for package in ("orders", "order", "")] == [True, False, False]
    assert publishers.find("team-b") is None
    with pytest.raises(RefusedError, match="is enrolled"):
        _enrolled(publishers)


def test_secret_is_not_in_the_database_in_the_clear(publishers: PublisherStore, database: Database) -> None:
    credential = _enrolled(publishers)
    with database.cursor() as cursor:
        cursor.execute("SELECT encrypted FROM airbridge.publisher_secret")
        [(stored,)] = cursor.fetchall()
    assert credential.secret not in stored


def test_rotation_keeps_two_secrets_for_as_long_as_it_says(publishers: PublisherStore) -> None:
    old = _enrolled(publishers)
    new = publishers.rotate("team-a", timedelta(seconds=1))
    found = publishers.find("team-a")
    assert found is not None
    assert found.secrets == (new.secret, old.secret)
    time.sleep(1.1)
    later = publishers.find("team-a")
    assert later is not None
    assert later.secrets == (new.secret,)


def test_revoked_publisher_comes_back_with_another_credential_only(publishers: PublisherStore) -> None:
    old = _enrolled(publishers)
    assert publishers.revoke("team-a")
    assert not publishers.revoke("team-a")
    for change in (
        lambda: publishers.rotate("team-a", timedelta(hours=1)),
        lambda: publishers.update("team-a", ["x"], None),
    ):
        with pytest.raises(RefusedError, match="no publisher 'team-a' is enrolled"):
            change()
    _enrolled(publishers)
    found = publishers.find("team-a")
    assert found is not None
    assert old.secret not in found.secrets


def test_name_belongs_to_one_principal_of_all_kinds(publishers: PublisherStore, store: WorkerStore) -> None:
    store.enroll("north-1", Allowance(("default",), 1))
    with pytest.raises(RefusedError, match="a worker is called 'north-1'"):
        _enrolled(publishers, "north-1")
    _enrolled(publishers, "team-a")
    with pytest.raises(RefusedError, match="a publisher is called 'team-a'"):
        store.enroll("team-a", Allowance(("default",), 1))


@pytest.mark.parametrize("packages", [(), ("",), ("Orders",), ("a/b",), ("..",), ("*x",), ("a", "")])
def test_what_is_no_package_is_refused(packages: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        checked_packages(packages)


def test_packages_are_kept_without_doubles() -> None:
    assert checked_packages(["orders", "*", "orders"]) == ("orders", "*")


# --- the command line ---------------------------------------------------------------------------------
def _run(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "airbridge"), "publisher", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_life_of_a_publisher_from_the_command_line(
    environment: dict[str, str], publishers: PublisherStore
) -> None:
    done = _run(environment, "enroll", "team-a", "--packages", "orders,reporting", "--expires", "90d")
    assert done.returncode == 0, done.stderr
    credential = Credential.parse(done.stdout.strip())
    assert credential.secret not in done.stderr
    assert _run(environment, "update", "team-a", "--packages", "orders").returncode == 0
    [row] = json.loads(_run(environment, "list", "--json").stdout)["publishers"]
    assert (row["name"], row["state"], row["packages"]) == ("team-a", "enrolled", ["orders"])
    assert row["expires"]
    assert "packages=orders" in _run(environment, "list").stdout
    rotated = json.loads(_run(environment, "rotate", "team-a", "--overlap", "1h", "--json").stdout)
    assert Credential.parse(rotated["token"]) != credential
    assert _run(environment, "revoke", "team-a").returncode == 0
    found = publishers.find("team-a")
    assert found is not None
    assert found.revoked_at is not None


def test_ensure_keeps_a_credential_that_is_good(environment: dict[str, str], database: Database) -> None:
    first = _run(environment, "ensure", "operator", "--packages", "*").stdout
    again = _run(environment, "ensure", "operator", "--packages", "*", stdin=first).stdout
    assert again == first != ""
    assert _run(environment, "ensure", "operator", "--packages", "*", stdin="x\n").stdout != first
    _run(environment, "revoke", "operator")
    assert _run(environment, "ensure", "operator", "--packages", "*", stdin=first).returncode == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("enroll", "Team", "--packages", "a"), 2),
        (("enroll", "team", "--packages", "A"), 2),
        (("enroll", "team", "--packages", ""), 2),
        (("rotate", "nobody"), 4),
        (("revoke", "nobody"), 4),
        (("update", "nobody", "--packages", "a"), 4),
    ],
)
def test_refusal_is_one_line_with_its_exit_code(
    environment: dict[str, str], database: Database, arguments: tuple[str, ...], code: int
) -> None:
    done = _run(environment, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
