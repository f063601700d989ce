"""A Postgres of the project's own image, migrated by the project's own Airflow image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
import pytest
from cryptography.fernet import Fernet
from tests.integration.controlplane.controlplane_containers import AIRFLOW, POSTGRES, Container, Lab

from airbridge.identity.database import Database
from airbridge.identity.jobs import Jobs
from airbridge.identity.store import Cipher, WorkerStore, migrate_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "of-the-identity-tests"


@dataclass(frozen=True, slots=True)
class Postgres:
    """The database server of these tests."""

    container: Container

    @property
    def uri(self) -> str:
        """As Airflow is told; the port is another one after each start."""
        return f"postgresql+psycopg2://airflow:{PASSWORD}@127.0.0.1:{self.container.port(5432)}/airflow"

    def until_ready(self) -> None:
        """Wait for the health check of the compose file."""
        check = ("psql", "-qAt", "-U", "airflow", "-d", "airflow", "-c", "SELECT 1")
        self.container.until("readiness", lambda: self.container.execute(*check).code == 0)

    def connect(self) -> psycopg2.extensions.connection:
        """Open a connection."""
        return psycopg2.connect(self.uri.replace("+psycopg2", ""), connect_timeout=10)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Postgres with Airflow's tables and the edge provider's; ours are not there yet."""
    secrets = tmp_path_factory.mktemp("postgres-secrets")
    secrets.chmod(0o755)
    (secrets / "db-password").write_text(PASSWORD)
    (secrets / "db-password").chmod(0o644)
    with Lab.open() as lab:
        network = lab.network("identity")
        server = Postgres(
            lab.start(
                "postgres",
                POSTGRES,
                network=network,
                aliases=["postgres"],
                mounts={
                    lab.volume("postgres-data"): "/var/lib/airbridge-postgres",
                    secrets: "/secrets/postgres:ro",
                },
                ports=[5432],
            )
        )
        server.until_ready()
        done = lab.run(
            AIRFLOW,
            *("airflow", "db", "migrate"),
            network=network,
            environment={
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow:{PASSWORD}@postgres/airflow"
            },
        )
        assert done.code == 0, done.text
        yield server


@pytest.fixture(scope="session")
def fernet_key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """Our tables, new and empty."""
    connection = postgres.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS airbridge CASCADE")
    migrate_schema(connection)
    connection.close()
    made = Database.at(postgres.uri)
    yield made
    made.close()


@pytest.fixture
def store(database: Database, fernet_key: str) -> WorkerStore:
    return WorkerStore(database, Cipher(fernet_key))


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def environment(postgres: Postgres, database: Database, fernet_key: str, tmp_path: Path) -> dict[str, str]:
    """What the command line finds in the control plane's image."""
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.uri,
        "AIRFLOW__CORE__FERNET_KEY": fernet_key,
        "HOME": str(tmp_path),
    }
