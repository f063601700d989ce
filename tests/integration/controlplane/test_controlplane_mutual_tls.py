"""The gateway that requires client certificates: what it refuses, and what it tells whom it proxies to."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.integration.controlplane.conftest import Gateway
from tests.integration.controlplane.controlplane_containers import GATEWAY
from tests.integration.controlplane.https_client import Door

from airbridge.identity.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.controlplane.conftest import EdgeSide
    from tests.integration.controlplane.controlplane_containers import Lab

    from airbridge.client_certificate import ClientCertificate

ENVIRONMENT = {
    "GATEWAY_NAMES": "10.1.2.3",
    "DAG_BUCKET": "airbridge-dags",
    "LOG_BUCKET": "airbridge-logs",
    "ENVIRONMENT": "dev",
    "GATEWAY_CLIENT_CERTIFICATES": "require",
}
NAME = "north-1"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def gateway(
    lab: Lab, edge_side: EdgeSide, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Gateway:
    """A gateway that requires client certificates of ``authority``."""
    folder = tmp_path_factory.mktemp("clients")
    folder.chmod(0o755)
    (folder / "client-ca.crt").write_text(authority.certificate_text)
    (folder / "client-ca.crt").chmod(0o644)
    return Gateway.of(
        lab.start(
            "gateway-mtls",
            GATEWAY,
            network=edge_side.network,
            environment=ENVIRONMENT,
            mounts={lab.volume("gateway-mtls-data"): "/data", folder: "/secrets/clients:ro"},
            ports=[8443],
        )
    )


@dataclass(frozen=True, slots=True)
class _Held(Door):
    """The way in of whoever holds a client certificate."""

    file: str = ""

    def context(self) -> ssl.SSLContext:
        """Shows the certificate."""
        made = ssl.create_default_context(cadata=self.root)
        made.load_cert_chain(self.file)
        return made


def _with(gateway: Gateway, held: ClientCertificate, folder: Path) -> Door:
    file = folder / "client.pem"
    file.write_text(held.text)
    return _Held(gateway.door.port, gateway.door.root, str(file))


@pytest.fixture
def held(authority: Authority) -> ClientCertificate:
    return authority.issue_with_key(NAME, timedelta(days=1))[1]


@pytest.fixture
def door(gateway: Gateway, held: ClientCertificate, tmp_path: Path) -> Door:
    return _with(gateway, held, tmp_path)


SPOOFED = [
    ("X-AirBridge-Client-Name", "south-2"),
    ("x-airbridge-client-name", "south-2"),
    ("X-AirBridge-Client-Serial", "1"),
    ("X-AirBridge-Client-Subject", "CN=south-2"),
]


@pytest.mark.parametrize(
    "path", ["/airbridge/v1/version", "/airbridge/v1/certificate", "/execution/task-instances/count"]
)
def test_upstream_is_told_who_the_handshake_was_with(door: Door, held: ClientCertificate, path: str) -> None:
    answer = door.ask("GET", path, SPOOFED)
    assert answer.upstream == "api-server"
    assert answer.seen_headers("X-AirBridge-Client-Name") == [NAME]
    assert answer.seen_headers("X-AirBridge-Client-Serial") == [held.serial]
    assert answer.seen_headers("X-AirBridge-Client-Subject") == []


def test_door_of_s3_is_told_too(door: Door, held: ClientCertificate) -> None:
    answer = door.ask("GET", "/s3/airbridge-dags/dev/x", SPOOFED)
    assert answer.upstream == "s3-door"
    assert answer.seen_headers("X-AirBridge-Client-Name") == [NAME]
    assert answer.seen_headers("X-AirBridge-Client-Serial") == [held.serial]


def test_door_of_s3_is_told_nobody_where_there_is_no_certificate(gateway: Gateway) -> None:
    """Publishers have none; the door asks edge hosts for theirs."""
    answer = gateway.door.ask("GET", "/s3/airbridge-dags/dev/x", SPOOFED)
    assert answer.upstream == "s3-door"
    assert [value for value in answer.seen_headers("X-AirBridge-Client-Name") if value] == []
    assert [value for value in answer.seen_headers("X-AirBridge-Client-Serial") if value] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/airbridge/v1/version"),
        ("POST", "/airbridge/v1/certificate"),
        ("POST", "/edge_worker/v1/worker/north-1"),
        ("GET", "/execution/task-instances/count"),
        ("GET", "/s3"),
        ("GET", "/S3/airbridge-dags/dev/x"),
        ("GET", "/nothing"),
        ("POST", "/AirBridge/v1/join"),
        ("POST", "/airbridge/v1/join?"),
        ("POST", "/airbridge/v1/join/"),
        ("GET", "/healthz/"),
        ("GET", "/Healthz"),
    ],
)
def test_without_a_certificate_everything_else_is_refused(gateway: Gateway, method: str, path: str) -> None:
    answer = gateway.door.ask(method, path, SPOOFED)
    assert (answer.status, answer.upstream) == (403, "")
    assert answer.seen["reason"] == "certificate_missing"


def test_without_a_certificate_a_host_may_join_and_nobody_s_name_is_told(gateway: Gateway) -> None:
    answer = gateway.door.ask("POST", "/airbridge/v1/join", SPOOFED, b"{}")
    assert answer.upstream == "api-server"
    assert [value for value in answer.seen_headers("X-AirBridge-Client-Name") if value] == []
    assert [value for value in answer.seen_headers("X-AirBridge-Client-Serial") if value] == []
    assert gateway.door.ask("GET", "/healthz").body == b"ok"


def _refused(door: Door, name: str | None = "localhost") -> bool:
    try:
        door.ask("GET", "/healthz", name=name, host=f"10.1.2.3:{door.port}" if name is None else "")
    except (ssl.SSLError, ConnectionError):
        return True
    return False


@pytest.mark.parametrize("name", ["localhost", None], ids=["with a server name", "without"])
def test_certificate_of_another_ca_ends_the_handshake(
    gateway: Gateway, tmp_path: Path, name: str | None
) -> None:
    _, foreign = Authority.new().issue_with_key(NAME, timedelta(days=1))
    assert _refused(_with(gateway, foreign, tmp_path), name)


def test_expired_certificate_ends_the_handshake(
    gateway: Gateway, authority: Authority, tmp_path: Path
) -> None:
    _, old = authority.issue_with_key(NAME, timedelta(seconds=-1))
    assert _refused(_with(gateway, old, tmp_path))


def test_client_that_dials_an_address_shows_its_certificate_too(door: Door) -> None:
    answer = door.ask("GET", "/airbridge/v1/version", name=None, host=f"10.1.2.3:{door.port}")
    assert answer.seen_headers("X-AirBridge-Client-Name") == [NAME]


def test_certificate_for_a_name_that_no_worker_has_is_none(
    gateway: Gateway, authority: Authority, held: ClientCertificate, tmp_path: Path
) -> None:
    """Signed by the right CA, by whatever accident: without a worker's name it opens nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    made = x509.load_pem_x509_certificate(held.certificate.encode())
    nameless = (
        x509.CertificateBuilder()
        .subject_name(made.subject)
        .issuer_name(made.issuer)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
        .add_extension(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    file = tmp_path / "nameless.pem"
    file.write_text(held.key + nameless.public_bytes(serialization.Encoding.PEM).decode())
    answer = _Held(gateway.door.port, gateway.door.root, str(file)).ask("GET", "/airbridge/v1/version")
    assert (answer.status, answer.upstream) == (403, "")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "/secrets/clients/client-ca.crt is no PEM certificate"),
        ({"GATEWAY_CLIENT_CERTIFICATES": "yes"}, "GATEWAY_CLIENT_CERTIFICATES='yes' is no choice"),
    ],
)
def test_switch_that_cannot_work_is_one_line(lab: Lab, environment: dict[str, str], message: str) -> None:
    done = lab.run(GATEWAY, environment={**ENVIRONMENT, **environment})
    assert done.code == 2
    assert message in done.text
    assert "| fix: " in done.text
