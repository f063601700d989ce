"""Postgres: made once, whole or not at all; its password is the secret's; what was committed stays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg2
import pytest
from tests.integration.controlplane.controlplane_containers import POSTGRES

if TYPE_CHECKING:
    from tests.integration.controlplane.conftest import Database, Secrets
    from tests.integration.controlplane.controlplane_containers import Lab

DATA = "/var/lib/airbridge-postgres"


def test_start_that_was_killed_half_way_is_healed_by_the_next(database: Database) -> None:
    # The fixture killed the first start while it made the cluster.
    assert database.after_kill == {"data.new"}
    assert database.ask("SELECT 1") == [(1,)]
    assert database.container.execute("ls", DATA, check=True).out.split() == ["data"]


def test_cluster_is_of_version_15_and_loses_nothing(database: Database) -> None:
    assert database.ask("SHOW server_version")[0][0].startswith("15.")
    for setting in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
        assert database.ask(f"SHOW {setting}") == [("on",)]
    assert database.ask("SHOW server_encoding") == [("UTF8",)]


@pytest.mark.parametrize("password", ["wrong", "", "airflow"])
def test_wrong_password_is_refused(database: Database, password: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        database.connect(password).close()


def test_password_is_in_no_log_line(database: Database) -> None:
    assert database.secrets.db_password not in database.container.logs()


def test_changed_secret_takes_effect_with_a_restart(database: Database) -> None:
    before = database.secrets.db_password
    lines = database.secrets.change_db_password("rotated '; DROP ROLE airflow; -- \\ % @ : / é")
    assert sorted(lines) == [
        "secrets: control/db-password: changed (AIRBRIDGE_DB_PASSWORD)",
        "secrets: door/db-password: changed (AIRBRIDGE_DB_PASSWORD)",
        "secrets: postgres/db-password: changed (AIRBRIDGE_DB_PASSWORD)",
    ]
    database.restart()
    assert database.ask("SELECT current_user") == [("airflow",)]
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        database.connect(before).close()


def test_every_row_that_was_acknowledged_survives_a_kill(database: Database) -> None:
    database.ask("CREATE TABLE kept (n integer PRIMARY KEY)")
    acknowledged: list[int] = []
    enough = threading.Event()

    def write() -> None:
        connection = database.connect()
        connection.autocommit = True
        with connection.cursor() as cursor:
            for number in range(1_000_000):
                cursor.execute("INSERT INTO kept VALUES (%s)", (number,))
                acknowledged.append(number)
                if number == 100:
                    enough.set()

    def write_until_killed() -> None:
        with pytest.raises(psycopg2.Error):
            write()

    writer = threading.Thread(target=write_until_killed)
    writer.start()
    assert enough.wait(60)
    database.container.kill()
    writer.join()
    database.start()
    kept = {row[0] for row in database.ask("SELECT n FROM kept")}
    database.ask("DROP TABLE kept")
    assert set(acknowledged) <= kept
    # At most the one that was on its way when the power went.
    assert len(kept) <= len(acknowledged) + 1


def test_missing_secret_is_one_line_and_exit_code_2(lab: Lab) -> None:
    done = lab.run(POSTGRES)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("postgres: /secrets/postgres/db-password is missing")
    assert "| fix: " in done.err
    assert done.err.count("\n") == 1


def test_volume_that_cannot_be_written_is_one_line_and_exit_code_2(lab: Lab, secrets: Secrets) -> None:
    done = lab.run(
        POSTGRES,
        mounts={secrets.volumes["postgres"]: "/secrets/postgres:ro", lab.volume("read-only"): f"{DATA}:ro"},
    )
    assert (done.code, done.out) == (2, "")
    assert f"volume {DATA} is not writable by uid 50000" in done.err
    assert done.err.count("\n") == 1
