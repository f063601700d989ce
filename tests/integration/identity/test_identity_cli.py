"""``airbridge edge …`` as an operator and as scripts call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airbridge.credential import Credential, JoinToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.identity.database import Database
    from airbridge.identity.store import WorkerStore


class Cli:
    """The command line, with its environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def __call__(self, *arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "airbridge.identity", "edge", *arguments],
            env={**self.environment, **changes},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    def workers(self) -> dict[str, dict[str, object]]:
        """What ``list --json`` says, by name."""
        return {row["name"]: row for row in json.loads(self("list", "--json").stdout)["workers"]}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    return Cli(environment)


def test_enrolling_prints_a_join_token_alone_on_stdout(cli: Cli, store: WorkerStore) -> None:
    done = cli("enroll", "plant-7", "--queues", "default,gpu", "--concurrency", "2", "--expires", "90d")
    assert done.returncode == 0, done.stderr
    token = JoinToken.parse(done.stdout.removesuffix("\n"))
    assert token.secret not in done.stderr
    row = cli.workers()["plant-7"]
    assert (row["state"], row["queues"], row["concurrency"]) == ("waiting", ["default", "gpu"], 2)
    assert row["connections"] == row["variables"] == []
    credential = store.join(token, "10.0.0.9")
    assert cli.workers()["plant-7"]["state"] == "enrolled"
    assert credential.secret not in cli("list", "--json").stdout


def test_enrolling_with_credential_prints_it(cli: Cli, store: WorkerStore) -> None:
    done = cli("enroll", "plant-7", "--queues", "default", "--credential", "--json")
    document = json.loads(done.stdout)
    worker = store.find("plant-7")
    assert worker is not None
    assert worker.secrets == (Credential.parse(document["token"]).secret,)
    assert document["kind"] == "credential"


def test_enrolling_twice_is_one_line_and_exit_code_4(cli: Cli) -> None:
    assert cli("enroll", "plant-7", "--queues", "default").returncode == 0
    done = cli("enroll", "plant-7", "--queues", "default")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert "| fix: " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("enroll", "Plant_7", "--queues", "default"),
        ("enroll", "plant-7", "--queues", ","),
        ("enroll", "plant-7", "--queues", "a b"),
        ("enroll", "plant-7", "--queues", ",".join(f"queue-{n:03}" for n in range(40))),
        ("enroll", "plant-7", "--queues", "a", "--concurrency", "0"),
        ("enroll", "plant-7", "--queues", "a", "--concurrency", "257"),
        ("enroll", "plant-7", "--queues", "a", "--expires", "soon"),
        ("enroll", "plant-7", "--queues", "a", "--expires", "0d"),
        ("enroll", "plant-7", "--queues", "a", "--connections", "x" * 251),
        ("rotate", "plant-7", "--overlap", "90d"),
    ],
)
def test_malformed_argument_is_one_line_and_exit_code_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert cli.workers() == {}


def test_update_changes_only_what_is_given(cli: Cli) -> None:
    cli("enroll", "plant-7", "--queues", "a", "--connections", "warehouse", "--expires", "1d")
    before = cli.workers()["plant-7"]
    assert cli("update", "plant-7", "--variables", "x,y").returncode == 0
    assert cli.workers()["plant-7"] == {**before, "variables": ["x", "y"]}
    assert cli("update", "plant-7", "--connections", "", "--expires", "never").returncode == 0
    after = cli.workers()["plant-7"]
    assert (after["connections"], after["expires"], after["queues"]) == ([], None, ["a"])


def test_ensure_keeps_a_credential_that_is_good(cli: Cli) -> None:
    first = cli("ensure", "local", "--queues", "default")
    assert first.returncode == 0, first.stderr
    again = cli("ensure", "local", "--queues", "default", stdin=first.stdout)
    assert again.stdout == first.stdout
    assert "new credential" not in again.stderr


@pytest.mark.parametrize("held", ["", "e" * 64, "other.", "rubbish\n"])
def test_ensure_replaces_what_is_no_credential_of_the_name(cli: Cli, held: str, store: WorkerStore) -> None:
    first = cli("ensure", "local", "--queues", "default").stdout.strip()
    other = cli("ensure", "other", "--queues", "default").stdout.strip()
    given = other if held == "other." else held
    new = cli("ensure", "local", stdin=given).stdout.strip()
    assert new not in (first, given)
    worker = store.find("local")
    assert worker is not None
    # The old one stays good for a while: a host that is made anew finishes its tasks with it.
    assert worker.secrets == (Credential.parse(new).secret, Credential.parse(first).secret)


def test_ensure_changes_what_is_given_and_keeps_the_rest(cli: Cli) -> None:
    held = cli("ensure", "local", "--queues", "a", "--variables", "*").stdout
    assert cli("ensure", "local", "--queues", "a,b", stdin=held).stdout == held
    row = cli.workers()["local"]
    assert (row["queues"], row["variables"], row["concurrency"]) == (["a", "b"], ["*"], 8)


def test_ensure_takes_back_no_revocation(cli: Cli) -> None:
    held = cli("ensure", "local", "--queues", "a").stdout
    assert cli("revoke", "local").returncode == 0
    done = cli("ensure", "local", "--queues", "a", stdin=held)
    assert (done.returncode, done.stdout) == (4, "")
    assert "was revoked" in done.stderr
    assert cli.workers()["local"]["state"] == "revoked"


def test_rotate_prints_the_new_credential_and_keeps_the_old_one_for_a_while(
    cli: Cli, store: WorkerStore
) -> None:
    old = Credential.parse(cli("ensure", "local", "--queues", "a").stdout.strip())
    new = Credential.parse(cli("rotate", "local", "--overlap", "10m").stdout.strip())
    worker = store.find("local")
    assert worker is not None
    assert worker.secrets == (new.secret, old.secret)
    assert cli.workers()["local"]["state"] == "rotating"


def test_join_token_of_an_unknown_worker_is_refused(cli: Cli) -> None:
    done = cli("join-token", "nobody")
    assert (done.returncode, done.stdout) == (4, "")


TREE = "8f70eeac7077629cbd5a6dc39cbbacb493d4b69a4cd73ee313f9b7afb3fb91f6"


@pytest.fixture
def reported(cli: Cli, database: Database) -> Iterator[None]:
    """A worker that was heard of a moment ago, on the tree that the control plane parses."""
    cli("enroll", "plant-7", "--queues", "default,gpu", "--concurrency", "2", "--expires", "90d")
    cli("enroll", "silent", "--queues", "default")
    said = {
        "airbridge_version": "0.1.0",
        "airflow_version": "3.0.4",
        "edge_provider_version": "5.1.0",
        "dag_tree": TREE,
    }
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO edge_worker (worker_name, state, last_update, jobs_active, sysinfo)"
            " VALUES ('plant-7', 'running', now() - interval '7 s', 1, %s)",
            (json.dumps(said),),
        )
        cursor.execute(
            "INSERT INTO dag_bundle (name, active, version) VALUES ('airbridge', true, %s)", (TREE,)
        )
    yield
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM edge_worker; DELETE FROM dag_bundle")


@pytest.mark.usefixtures("reported")
def test_list_shows_what_each_worker_reported(cli: Cli) -> None:
    row = cli.workers()["plant-7"]
    assert (row["live"], row["worker_state"], row["jobs"]) == (True, "running", 1)
    assert (row["airbridge_version"], row["airflow_version"], row["edge_provider_version"]) == (
        "0.1.0",
        "3.0.4",
        "5.1.0",
    )
    assert (row["dag_tree"], row["dag_current"]) == (TREE, True)
    silent = cli.workers()["silent"]
    assert silent["live"] is False
    assert silent["dag_tree"] is silent["last_heartbeat"] is silent["dag_current"] is None


@pytest.mark.usefixtures("reported")
def test_list_fits_a_terminal_of_100_columns(cli: Cli) -> None:
    command = f"{sys.executable} -m airbridge.identity edge list"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],  # which gives it a terminal
        env={**cli.environment, "COLUMNS": "100", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    head, plant, silent = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    assert max(len(line) for line in (head, plant, silent)) <= 100
    assert head.split() == ["name", "state", "queues", "tasks", "versions", "DAGs", "seen", "expires"]
    for words in (
        "plant-7",
        "waiting, live",
        "default,gpu",
        "1/2",
        "0.1.0 3.0.4 5.1.0",
        "8f70eeac current",
        " s ago",
    ):
        assert words in plant
    assert "silent" in silent
    assert "never" in silent


def test_list_is_one_plain_line_a_worker_where_no_terminal_is(cli: Cli) -> None:
    for name in ("b", "a"):
        cli("enroll", name, "--queues", "x,y")
    lines = cli("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b"]
    assert "queues=x,y" in lines[0]
    assert "connections=-" in lines[0]


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ""}, 2, "is not set to a Postgres URI"),
        ({"AIRFLOW__CORE__FERNET_KEY": ""}, 2, "AIRFLOW__CORE__FERNET_KEY is not set"),
        ({"AIRFLOW__CORE__FERNET_KEY": "short"}, 2, "holds no Fernet key"),
        ({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://a:b@127.0.0.1:9/x"}, 3, "Postgres cannot"),
    ],
)
def test_what_is_not_there_is_one_line(cli: Cli, changes: dict[str, str], code: int, says: str) -> None:
    done = cli("list", **changes)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_tables_of_another_release_are_refused(cli: Cli, database: object) -> None:
    from airbridge.identity.database import Database

    assert isinstance(database, Database)
    with database.cursor() as cursor:
        cursor.execute("INSERT INTO airbridge.schema_version (version) VALUES (999)")
    done = cli("list")
    assert done.returncode == 4
    assert "version 999" in done.stderr
