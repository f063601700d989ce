"""Two doors with the real LocalStack and Postgres: one before S3, and one whose S3 is the first."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
import psycopg2
import pytest
from botocore.config import Config
from cryptography.fernet import Fernet
from tests.integration.controlplane.controlplane_containers import AIRFLOW, POSTGRES, Container, Lab
from tests.unit.s3door.s3_requests import signed

from airbridge.credential import Credential
from airbridge.identity.database import Database
from airbridge.identity.publishers import PublisherStore
from airbridge.identity.store import Cipher, migrate_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.s3door.s3_requests import Sent

LOCALSTACK = os.environ.get("AIRBRIDGE_LOCALSTACK_IMAGE", "airbridge/localstack:0.1.0")
PASSWORD = "of-the-door-tests"
BUCKETS = ("airbridge-dags", "airbridge-logs")
#: Of the second door: few, so that a test need not send many.
RATE = 5


def client(port: int, credential: Credential) -> Any:
    """boto3 in front of a port."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=credential.name,
        aws_secret_access_key=credential.secret,
        config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 1}),
    )


@dataclass(slots=True)
class DoorOf:
    """A running door."""

    container: Container

    def send(self, sent: Sent, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request to the letter."""
        connection = http.client.HTTPConnection("127.0.0.1", self.container.port(9000), timeout=60)
        try:
            connection.putrequest(sent.method, sent.target, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.headers:
                connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ask(
        self, who: Credential, method: str, path: str, body: bytes = b"", **more: Any
    ) -> tuple[int, bytes]:
        """Sign and send."""
        sent = signed(method, path, body=body, name=who.name, secret=who.secret, host="door:9000", **more)
        return self.send(sent, body)

    def inside(self, path: str) -> tuple[int, str]:
        """What it answers on its inner port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.container.port(8081)}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()


@dataclass(slots=True)
class Site:
    """Everything that was started."""

    localstack: Container
    postgres: Container
    door: DoorOf
    chained: DoorOf
    publishers: PublisherStore
    team: Credential
    operator: Credential
    raw: Any = field(repr=False)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """LocalStack, Postgres, a door, and a door whose S3 is the first one."""
    with Lab.open() as lab:
        network = lab.network("s3door")
        secrets = lab.volume("s3door-secrets")
        lab.run(
            AIRFLOW, "-c", f"printf %s {PASSWORD} > /secrets/postgres/db-password",
            entrypoint="sh", mounts={secrets: "/secrets/postgres"},
        )  # fmt: skip
        localstack = lab.start(
            "s3", LOCALSTACK, network=network, aliases=["localstack"], ports=[4566],
            mounts={lab.volume("s3-data"): "/var/lib/localstack"},
        )  # fmt: skip
        postgres = lab.start(
            "s3door-postgres", POSTGRES, network=network, aliases=["postgres"], ports=[5432],
            mounts={lab.volume("pg"): "/var/lib/airbridge-postgres", secrets: "/secrets/postgres:ro"},
        )  # fmt: skip
        check = ("psql", "-qAt", "-U", "airflow", "-d", "airflow", "-c", "SELECT 1")
        postgres.until("readiness", lambda: postgres.execute(*check).code == 0)
        uri = f"postgresql://airflow:{PASSWORD}@127.0.0.1:{postgres.port(5432)}/airflow"
        connection = psycopg2.connect(uri)
        migrate_schema(connection)
        connection.close()
        key = Fernet.generate_key().decode()
        publishers = PublisherStore(Database.at(uri), Cipher(key))
        team, operator = Credential.new("team-a"), Credential.new("operator")
        publishers.enroll(team, ["orders"])
        publishers.enroll(operator, ["*"])
        raw = client(localstack.port(4566), Credential("airbridge", "airbridge"))
        localstack.until("S3", lambda: _answers(raw))
        for bucket in BUCKETS:
            raw.create_bucket(Bucket=bucket)
            raw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        environment = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql://airflow:{PASSWORD}@postgres/airflow",
            "AIRFLOW__CORE__FERNET_KEY": key,
            "DAG_BUCKET": BUCKETS[0],
            "LOG_BUCKET": BUCKETS[1],
            "ENVIRONMENT": "dev",
        }
        first = {
            "S3_UPSTREAM": "http://localstack:4566",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "a",
        }
        second = {
            "S3_UPSTREAM": "http://door:9000",
            "AWS_ACCESS_KEY_ID": operator.name,
            "AWS_SECRET_ACCESS_KEY": operator.secret,
            "S3_DOOR_RATE": str(RATE),
        }
        doors = []
        for name, more in (("door", first), ("chained", second)):
            container = lab.start(
                name, AIRFLOW, "python", "-m", "airbridge.s3door", network=network, aliases=[name],
                environment={**environment, **more}, ports=[9000, 8081],
            )  # fmt: skip
            doors.append(DoorOf(container))
            container.until("listening", lambda container=container: "listens on port" in container.logs())  # type: ignore[misc]
        yield Site(localstack, postgres, doors[0], doors[1], publishers, team, operator, raw)


def _answers(s3: Any) -> bool:
    try:
        s3.list_buckets()
    except Exception:
        return False
    return True
