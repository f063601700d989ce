"""The door is the only way to S3: read from the compose file that users start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


def test_localstack_publishes_no_port_and_is_on_an_internal_network_alone(services: dict[str, Any]) -> None:
    networks = yaml.safe_load((ROOT / "compose.yaml").read_text())["networks"]
    assert "ports" not in services["localstack"]
    assert services["localstack"]["networks"] == ["storage"]
    assert networks["storage"] == {"internal": True}


def test_only_the_two_front_doors_publish_ports(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"api-server", "gateway"}


def test_gateway_reaches_s3_through_the_door_only(services: dict[str, Any]) -> None:
    assert "storage" not in services["gateway"]["networks"]
    assert {"control", "storage", "database"} <= set(services["s3-door"]["networks"])


def test_door_mounts_no_secret_but_its_own(services: dict[str, Any]) -> None:
    assert services["s3-door"]["volumes"] == ["secrets-door:/secrets/control:ro"]
