"""A public host name gets its certificate by ACME, with the Caddyfile of production and one open port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.controlplane.conftest import ROOT
from tests.integration.controlplane.controlplane_containers import GATEWAY
from tests.integration.controlplane.https_client import Door

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.controlplane.conftest import EdgeSide
    from tests.integration.controlplane.controlplane_containers import Container, Lab

# A CA that speaks ACME; it asks the public host on port 443 for proof, as a public one does.
AUTHORITY = """
{
	admin off
	skip_install_trust
	https_port 8443
	storage file_system /data/caddy
	pki {
		ca local {
			root_cn "A public CA"
		}
	}
}
acme.example {
	tls internal
	acme_server
}
"""
TOKEN_HEADER = "X-AirBridge-Token"


@pytest.fixture(scope="module")
def authority_root(lab: Lab, edge_side: EdgeSide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root certificate of a running ACME directory."""
    folder = tmp_path_factory.mktemp("acme")
    folder.chmod(0o755)
    (folder / "Caddyfile").write_text(AUTHORITY)
    (folder / "Caddyfile").chmod(0o644)
    authority = lab.start(
        "acme-ca",
        GATEWAY,
        *("run", "--config", "/acme/Caddyfile", "--adapter", "caddyfile"),
        entrypoint="caddy",
        network=edge_side.network,
        aliases=["acme.example"],
        mounts={folder: "/acme:ro", lab.volume("acme-data"): "/data"},
    )
    directory = ["curl", "-sf", "--cacert", ROOT, "--connect-to", "::127.0.0.1:"]
    authority.until(
        "its directory",
        lambda: authority.execute(*directory, "https://acme.example:8443/acme/local/directory").code == 0,
    )
    root = folder / "root.pem"
    root.write_bytes(authority.read(ROOT))
    root.chmod(0o644)
    return root


@pytest.fixture(scope="module")
def public_gateway(lab: Lab, edge_side: EdgeSide, authority_root: Path) -> Container:
    gateway = lab.start(
        "gateway-acme",
        GATEWAY,
        network=edge_side.network,
        aliases=["gateway-acme"],
        environment={
            "GATEWAY_PUBLIC_HOST": edge_side.public_host,
            "GATEWAY_ACME_DIRECTORY": "https://acme.example:8443/acme/local/directory",
            "GATEWAY_ACME_EMAIL": "operator@airbridge.example",
            "GATEWAY_ACME_CA_FILE": "/run/acme-root.pem",
            "DAG_BUCKET": "dags.of.ours",
            "LOG_BUCKET": "airbridge-logs",
        },
        mounts={
            authority_root: "/run/acme-root.pem:ro",
            lab.volume("gateway-acme-data"): "/data",
        },
        ports=[8443],
    )
    gateway.until("health", lambda: gateway.execute("airbridge-gateway-health").code == 0)
    return gateway


@pytest.fixture(scope="module")
def public_door(public_gateway: Container, authority_root: Path) -> Door:
    return Door(public_gateway.port(8443), authority_root.read_text())


def test_public_host_gets_its_certificate_from_the_acme_directory(
    public_door: Door, edge_side: EdgeSide, public_gateway: Container
) -> None:
    with public_door.connect(edge_side.public_host) as connection:
        certificate = connection.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", edge_side.public_host),)
    assert "tls-alpn-01" in public_gateway.logs()


def test_worker_paths_pass_at_the_public_host(public_door: Door, edge_side: EdgeSide) -> None:
    allowed = public_door.ask("GET", "/airbridge/v1/version", name=edge_side.public_host)
    assert (allowed.status, allowed.upstream) == (200, "api-server")
    denied = public_door.ask("GET", "/api/v2/dags", name=edge_side.public_host)
    assert (denied.status, denied.upstream) == (404, "")


def test_client_without_a_server_name_gets_the_public_certificate(
    public_door: Door, edge_side: EdgeSide
) -> None:
    with public_door.connect(None) as connection:
        certificate = connection.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("DNS", edge_side.public_host),)


@pytest.mark.parametrize("target", ["/dagsxofxours/eu.prod/x", "/dagsxofxours?prefix=eu.prod/"])
def test_dot_in_a_name_stands_for_itself(public_door: Door, edge_side: EdgeSide, target: str) -> None:
    answer = public_door.ask("GET", f"/s3{target}", name=edge_side.public_host)
    assert (answer.status, answer.upstream) == (403, "")
    there = public_door.ask("GET", "/s3/dags.of.ours/eu.prod/x", name=edge_side.public_host)
    assert (there.status, there.upstream) == (200, "s3-door")
