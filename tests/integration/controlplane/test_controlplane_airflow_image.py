"""The Airflow image: it answers, refuses a stale lock, migrates an empty database, and says what is away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.controlplane.conftest import ADMIN_PASSWORD, DB_PASSWORD
from tests.integration.controlplane.controlplane_containers import AIRFLOW, Finished, docker

if TYPE_CHECKING:
    from tests.integration.controlplane.conftest import Database, Secrets, Service
    from tests.integration.controlplane.controlplane_containers import Lab

LOCK = Path(__file__).parents[3] / "requirements" / "airflow.txt"
AWAY = "http://s3-that-is-away:4566"
MOUNTED_LOCK = "/run/airbridge/requirements.txt:ro"


def _one_line(done: Finished) -> str:
    """What was said on stderr, which must be a single line without a traceback."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1, done.text
    return lines[0]


# --- image ----------------------------------------------------------------------------------------
def test_airflow_cli_answers_with_the_pinned_version_under_its_own_lock(lab: Lab) -> None:
    done = lab.run(AIRFLOW, mounts={LOCK: MOUNTED_LOCK})
    assert done.code == 0, done.text
    assert done.out.splitlines()[-1] == "3.0.4"


def test_lock_that_changed_since_the_build_is_refused(lab: Lab, tmp_path: Path) -> None:
    changed = tmp_path / "airflow.txt"
    changed.write_text(f"{LOCK.read_text()}# one more\n")
    changed.chmod(0o644)
    done = lab.run(AIRFLOW, mounts={changed: MOUNTED_LOCK})
    assert (done.code, done.out) == (4, "")
    assert "make build" in _one_line(done)
    assert "requirements/airflow.txt" in done.err


# --- secrets --------------------------------------------------------------------------------------
def test_secrets_of_the_first_start_belong_to_the_services_user_alone(secrets: Secrets) -> None:
    assert secrets.first_start.code == 0, secrets.first_start.text
    found = re.findall(r"(?m)^(\d+) (\d+:\d+) (\S+/\S+)$", secrets.first_start.out)
    assert {(mode, owner) for mode, owner, _ in found} == {("600", "50000:50000")}
    assert {path for _, _, path in found} == {
        *("control/db-password", "control/fernet-key", "control/session-secret", "postgres/db-password"),
        *("door/db-password", "door/fernet-key"),
        *("signing/jwt-private-key", "signing/internal-edge-secret", "signing/admin-password"),
        *("issuing/client-ca", "clients/client-ca.crt"),
    }


def test_secrets_are_not_printed_when_they_are_made(secrets: Secrets) -> None:
    assert DB_PASSWORD not in secrets.first_start.text
    assert ADMIN_PASSWORD not in secrets.first_start.text


def test_show_prints_the_password_and_nothing_else(lab: Lab, secrets: Secrets) -> None:
    done = lab.run(
        AIRFLOW,
        *("python", "-m", "airbridge.controlplane", "show", "admin-password"),
        mounts={secrets.volumes["signing"]: "/secrets/signing:ro"},
    )
    assert done == Finished(0, f"{ADMIN_PASSWORD}\n", "")


def test_volume_of_another_owner_is_one_line(lab: Lab, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = lab.run(
        AIRFLOW,
        *("python", "-m", "airbridge.controlplane", "secrets"),
        mounts={tmp_path: "/secrets/signing:ro", lab.volume("some-control"): "/secrets/control"},
    )
    assert done.code == 1
    said = _one_line(done)
    assert re.search(r"secret file /secrets/\w+/[\w-]+ cannot be written: .* \| fix: .*50000", said)


# --- database -------------------------------------------------------------------------------------
def test_service_that_comes_before_postgres_waits_and_says_for_what(triggerer: Service) -> None:
    assert triggerer.before_postgres.count("waiting for Postgres") == 1
    assert 'host name "postgres"' in triggerer.before_postgres


def test_service_migrates_an_empty_database_before_it_starts(triggerer: Service, database: Database) -> None:
    assert "airbridge: migrating the metadata database" in triggerer.container.logs()
    tables = {row[0] for row in database.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    # Airflow's own, the access manager's and the edge provider's.
    assert {"dag_run", "task_instance", "ab_user", "edge_job", "edge_worker"} <= tables


def test_second_migration_does_nothing_and_is_quick(triggerer: Service) -> None:
    script = "TIMEFORMAT='%U %S'; time airbridge-env python -m airbridge.controlplane migrate"
    done = triggerer.container.execute("bash", "-c", script)
    assert (done.code, done.out) == (0, "")
    # CPU seconds, which other work on the machine does not change. Importing Airflow alone takes three.
    assert sum(map(float, done.err.split())) < 1.5


def test_older_schema_is_noticed(triggerer: Service, database: Database) -> None:
    migrated = "from airbridge.controlplane._database import *; print(is_migrated(connect()))"
    ask = ("airbridge-env", "python", "-c", migrated)
    assert triggerer.container.execute(*ask).out == "True\n"
    [(head,)] = database.ask("SELECT version_num FROM alembic_version_edge3")
    database.ask("UPDATE alembic_version_edge3 SET version_num = 'older'")
    try:
        assert triggerer.container.execute(*ask).out == "False\n"
    finally:
        database.ask(f"UPDATE alembic_version_edge3 SET version_num = '{head}'")


def test_wrong_database_password_is_said_at_once(triggerer: Service, database: Database) -> None:
    command = ("airbridge-env", "python", "-m", "airbridge.controlplane", "migrate")
    wrong = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.uri(password="wrong")}
    done = triggerer.container.execute(*command, **wrong)
    assert (done.code, done.out) == (3, "")
    assert "password authentication failed" in _one_line(done)


# --- health ---------------------------------------------------------------------------------------
def test_health_of_a_service_is_its_heartbeat(triggerer: Service) -> None:
    done = triggerer.check_health("triggerer")
    assert done.code == 0, done.text
    assert re.fullmatch(r"triggerer on triggerer: heartbeat [\d.]+ s ago\n", done.out)


def test_service_without_a_heartbeat_is_unhealthy_in_one_line(triggerer: Service) -> None:
    done = triggerer.check_health("scheduler")
    assert (done.code, done.out) == (1, "")
    assert "scheduler on triggerer has written no heartbeat yet" in _one_line(done)


def test_heartbeat_of_another_host_does_not_count(triggerer: Service, database: Database) -> None:
    database.ask(
        "INSERT INTO job (job_type, hostname, state, latest_heartbeat)"
        " VALUES ('SchedulerJob', 'elsewhere', 'running', now())"
    )
    assert triggerer.check_health("scheduler").code == 1


def test_old_heartbeat_is_unhealthy_and_its_age_is_said(triggerer: Service, database: Database) -> None:
    database.ask(
        "INSERT INTO job (job_type, hostname, state, latest_heartbeat)"
        " VALUES ('DagProcessorJob', 'triggerer', 'running', now() - interval '100 s')"
    )
    done = triggerer.check_health("dag-processor")
    assert done.code == 1
    assert re.search(r"last heartbeat 1\d\d s ago", _one_line(done))


def test_database_without_tables_is_unhealthy_in_one_line(triggerer: Service, database: Database) -> None:
    empty = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.uri(database="postgres")}
    done = triggerer.check_health("triggerer", **empty)
    assert done.code == 1
    assert 'relation "job" does not exist' in _one_line(done)


# --- init -----------------------------------------------------------------------------------------
def _init(lab: Lab, secrets: Secrets, triggerer: Service, **environment: str) -> Finished:
    settings = {
        "S3_ENDPOINT_URL": AWAY,
        "AWS_ACCESS_KEY_ID": "airbridge",
        "AWS_SECRET_ACCESS_KEY": "airbridge",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "DAG_BUCKET": "airbridge-dags",
        "LOG_BUCKET": "airbridge-logs",
        "PYTHONWARNINGS": "ignore",
        **environment,
    }
    return lab.run(
        AIRFLOW,
        *("python", "-m", "airbridge.controlplane", "init"),
        network=triggerer.network,
        environment=settings,
        mounts={
            secrets.volumes["control"]: "/secrets/control:ro",
            secrets.volumes["signing"]: "/secrets/signing:ro",
        },
    )


def test_init_makes_the_admin_once_and_says_when_s3_is_away(
    lab: Lab, secrets: Secrets, triggerer: Service, database: Database
) -> None:
    first = _init(lab, secrets, triggerer)
    assert first.code == 3, first.text
    assert "init: database is up to date\n" in first.out
    assert f"init: user 'admin' made with password {ADMIN_PASSWORD} " in first.out
    assert f"S3 at {AWAY} did not answer" in first.err.splitlines()[-1]
    assert "Traceback" not in first.text
    roles = {row[0] for row in database.ask("SELECT name FROM ab_role")}
    assert {"Admin", "Op", "User", "Viewer"} <= roles

    second = _init(lab, secrets, triggerer)
    assert "init: user 'admin' exists\n" in second.out
    assert ADMIN_PASSWORD not in second.text
    assert database.ask("SELECT count(*) FROM ab_user") == [(1,)]


def test_init_refuses_malformed_settings_before_it_changes_anything(
    lab: Lab, secrets: Secrets, triggerer: Service
) -> None:
    done = _init(lab, secrets, triggerer, S3_ENDPOINT_URL="not-an-address", AIRFLOW__CORE__PARALLELISM="lots")
    assert (done.code, done.out) == (2, "")
    line = _one_line(done)
    assert "S3_ENDPOINT_URL='not-an-address'" in line
    assert "AIRFLOW_PARALLELISM='lots'" in line


def test_health_says_when_postgres_went_away_and_recovers(triggerer: Service, database: Database) -> None:
    docker("pause", database.container.name)
    try:
        done = triggerer.check_health("triggerer")
        assert (done.code, done.out) == (3, "")
        assert "Postgres cannot be used" in _one_line(done)
    finally:
        docker("unpause", database.container.name)
    triggerer.container.until("recovery", lambda: triggerer.check_health("triggerer").code == 0)
