"""The control plane's images, running; every container is shared by as many tests as can be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg2
import pytest
from tests.integration.controlplane.controlplane_containers import (
    AIRFLOW,
    GATEWAY,
    HERE,
    POSTGRES,
    Container,
    Finished,
    Lab,
    docker,
)
from tests.integration.controlplane.https_client import Door

if TYPE_CHECKING:
    from collections.abc import Iterator

CREDENTIAL = "north-1." + "e" * 64
ROOT = "/data/caddy/pki/authorities/local/root.crt"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab.open() as opened:
        yield opened


@pytest.fixture(scope="session")
def credential() -> str:
    """What the stand-in of the api-server takes for a worker's."""
    return CREDENTIAL


@pytest.fixture(scope="session")
def network(lab: Lab) -> str:
    """One for all, because an engine has some thirty to give."""
    return lab.network("all")


@dataclass(frozen=True, slots=True)
class EdgeSide:
    """A network with what stands before and behind the gateway."""

    network: str
    public_host: str


@pytest.fixture(scope="session")
def edge_side(lab: Lab, network: str) -> EdgeSide:
    """Stand-ins for the api-server and the door of S3, and the public address of the gateway with ACME."""
    side = EdgeSide(network, "edge.airbridge.example")
    upstreams = lab.start(
        "upstreams",
        AIRFLOW,
        "/echo_upstreams.py",
        entrypoint="python",
        network=side.network,
        aliases=["api-server", "s3-door", side.public_host],
        environment={"FORWARD_TO": "gateway-acme:8443"},
        mounts={HERE / "echo_upstreams.py": "/echo_upstreams.py:ro"},
    )
    upstreams.until("listening", lambda: "listening" in upstreams.logs())
    return side


@dataclass(slots=True)
class Gateway:
    """A running gateway; ``door`` is the way in since the last start."""

    container: Container
    door: Door

    @classmethod
    def of(cls, container: Container) -> Gateway:
        """Wait until the container is healthy."""
        gateway = cls(container, Door(0, ""))
        gateway.find_door()
        return gateway

    def find_door(self) -> None:
        """Wait for its own health check, and look for its port, which differs after each start."""
        self.container.until("health", lambda: self.container.execute("airbridge-gateway-health").code == 0)
        self.door = Door(self.container.port(8443), self.container.read(ROOT).decode())


@pytest.fixture(scope="session")
def gateway(lab: Lab, edge_side: EdgeSide) -> Gateway:
    """A gateway with its own CA and a few names more."""
    return Gateway.of(
        lab.start(
            "gateway",
            GATEWAY,
            network=edge_side.network,
            environment={
                # The same name twice, and addresses of both kinds.
                "GATEWAY_NAMES": "edge.example.org ::1 LOCALHOST  Edge.Example.Org\t127.0.0.1 ",
                "DAG_BUCKET": "airbridge-dags",
                "LOG_BUCKET": "airbridge-logs",
            },
            mounts={lab.volume("gateway-data"): "/data"},
            ports=[8443],
        )
    )


@pytest.fixture
def door(gateway: Gateway) -> Door:
    return gateway.door


# What an operator may choose: every character that SQL, a URL or a shell would like to read otherwise.
DB_PASSWORD = "p'ä$HOME w:/@%2F\\\"#?&"
# Made passwords begin with a dash once in a while.
ADMIN_PASSWORD = "-starts-with-a-dash"
AUDIENCES = ("control", "signing", "postgres", "issuing", "clients", "door")


@dataclass(slots=True)
class Secrets:
    """The secrets volumes, as the service 'secrets' of the compose file fills them."""

    lab: Lab
    volumes: dict[str, str]
    db_password: str
    first_start: Finished

    @classmethod
    def make(cls, lab: Lab) -> Secrets:
        """Run the first start."""
        volumes = {audience: lab.volume(f"secrets-{audience}") for audience in AUDIENCES}
        secrets = cls(lab, volumes, DB_PASSWORD, Finished(-1, "", ""))
        secrets.first_start = secrets.run(
            AIRBRIDGE_DB_PASSWORD=DB_PASSWORD, AIRBRIDGE_ADMIN_PASSWORD=ADMIN_PASSWORD
        )
        return secrets

    def run(self, **environment: str) -> Finished:
        """Run the service; then list the files as 'mode owner:group path'."""
        script = "python -m airbridge.controlplane secrets && find /secrets -type f -printf '%m %U:%G %P\\n'"
        mounts = {volume: f"/secrets/{audience}" for audience, volume in self.volumes.items()}
        return self.lab.run(AIRFLOW, "bash", "-c", script, environment=environment, mounts=mounts)

    def change_db_password(self, password: str) -> list[str]:
        """Override it; returns what the service said."""
        done = self.run(AIRBRIDGE_DB_PASSWORD=password)
        assert done.code == 0, done.text
        self.db_password = password
        return [line for line in done.out.splitlines() if line.startswith("secrets: ")]


@pytest.fixture(scope="session")
def secrets(lab: Lab) -> Secrets:
    return Secrets.make(lab)


@dataclass(slots=True)
class Database:
    """A running Postgres; ``after_kill`` is what its volume held when its first start had been killed."""

    container: Container
    secrets: Secrets
    after_kill: set[str]

    def connect(self, password: str | None = None) -> Any:
        """Connect through the network, as every other service does."""
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.container.port(5432),
            user="airflow",
            dbname="airflow",
            password=self.secrets.db_password if password is None else password,
            connect_timeout=10,
        )

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and commit it."""
        connection = self.connect()
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def uri(self, *, password: str | None = None, database: str = "airflow") -> str:
        """What Airflow would be told."""
        chosen = quote(self.secrets.db_password if password is None else password, safe="")
        return f"postgresql+psycopg2://airflow:{chosen}@postgres:5432/{database}"

    def start(self) -> None:
        """Start it again and wait for the health check of the compose file."""
        self.container.start()
        self.until_ready()

    def restart(self) -> None:
        """Stop it in an orderly way and start it."""
        docker("restart", self.container.name)
        self.until_ready()

    def until_ready(self) -> None:
        """Wait for the health check of the compose file."""
        check = ("psql", "-qAt", "-U", "airflow", "-d", "airflow", "-c", "SELECT 1")
        self.container.until("readiness", lambda: self.container.execute(*check).code == 0)


@pytest.fixture(scope="session")
def database(lab: Lab, secrets: Secrets) -> Database:
    """A Postgres whose first start was killed while it made the cluster. No other container finds it yet."""
    volume = lab.volume("postgres-data")
    data = "/var/lib/airbridge-postgres"
    container = lab.start(
        "postgres",
        POSTGRES,
        network="bridge",
        mounts={volume: data, secrets.volumes["postgres"]: "/secrets/postgres:ro"},
        ports=[5432],
    )
    half_made = ("test", "-s", f"{data}/data.new/PG_VERSION")
    container.until("half a cluster", lambda: container.execute(*half_made).code == 0, pause_s=0.02)
    container.kill()
    left = lab.run(POSTGRES, "-c", f"ls {data}", entrypoint="bash", mounts={volume: f"{data}:ro"})
    made = Database(container, secrets, set(left.out.split()))
    made.start()
    return made


@dataclass(frozen=True, slots=True)
class Service:
    """A long-running service of the Airflow image that was started while Postgres was away."""

    container: Container
    network: str
    before_postgres: str
    seconds_to_heartbeat: float

    def check_health(self, service: str, **environment: str) -> Finished:
        """Run the health check of the compose file."""
        command = ("airbridge-env", "python", "-m", "airbridge.controlplane", "health", service)
        return self.container.execute(*command, **environment)


@pytest.fixture(scope="session")
def triggerer(lab: Lab, network: str, secrets: Secrets, database: Database) -> Service:
    """A triggerer that came before its database, which was empty."""
    container = lab.start(
        "triggerer",
        AIRFLOW,
        *("airflow", "triggerer", "--skip-serve-logs"),
        network=network,
        hostname="triggerer",
        environment={"AIRFLOW__LOGGING__REMOTE_LOGGING": "False"},
        mounts={
            secrets.volumes["control"]: "/secrets/control:ro",
            lab.volume("airflow-logs"): "/opt/airflow/logs",
        },
    )
    container.until("a word about Postgres", lambda: "waiting for Postgres" in container.logs())
    before = container.logs()
    docker("network", "connect", "--alias", "postgres", network, database.container.name)
    began = time.monotonic()
    check = ("airbridge-env", "python", "-m", "airbridge.controlplane", "health", "triggerer")
    container.until("a heartbeat", lambda: container.execute(*check).code == 0, pause_s=0.5)
    return Service(container, network, before, time.monotonic() - began)
