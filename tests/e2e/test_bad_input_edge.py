"""An endpoint whose certificate has expired: diag says so; nothing is sent to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from _stack import PROJECT, Compose, EdgeHost, docker, free_ports, until
from _trouble import edge_like
from tests.unit.edge.edge_servers import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def expired(edge: EdgeHost, tmp_path: Path) -> Iterator[Compose]:
    """An edge host whose CONTROL_PLANE_URL leads to a real TLS server that nobody has renewed for a week."""
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue(("host.docker.internal",), starts=-90, ends=-7)
    for file in (authority.file, certificate):
        file.chmod(0o644)
    (port,) = free_ports(1)
    image = docker(
        "inspect", "--format", "{{.Config.Image}}", edge.compose.container("edge-worker")
    ).stdout.strip()
    name = f"{PROJECT}-expired"
    docker(
        *("run", "--detach", "--name", name, "--label", f"com.docker.compose.project={name}"),
        *(
            "--publish",
            f"{port}:8443",
            "--volume",
            f"{certificate}:/server.pem:ro",
            "--entrypoint",
            "openssl",
        ),
        *(image, "s_server", "-accept", "8443", "-cert", "/server.pem", "-key", "/server.pem", "-www"),
    )
    host = edge_like(
        edge,
        "expired",
        CONTROL_PLANE_URL=f"https://host.docker.internal:{port}",
        CONTROL_PLANE_CA_FILE=str(authority.file),
    )
    try:
        until("the server listens", lambda: "ACCEPT" in docker("logs", name).output)
        yield host
    finally:
        docker("rm", "--force", name)
        host.remove()


def test_diag_names_an_expired_certificate(expired: Compose) -> None:
    done = expired("run", "--rm", "--no-deps", "--no-TTY", "edge-worker", "diag", "--json", check=False)
    assert done.code == 1, done.output
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["tcp"]["outcome"] == "pass"
    assert checks["tls chain"]["outcome"] == "fail"
    assert checks["tls chain"]["value"] == "certificate refused: certificate has expired"
    assert checks["tls chain"]["fix"].startswith("renew the gateway's certificate")
    assert checks["token"]["outcome"] == "not run"
