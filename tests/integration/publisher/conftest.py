from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from publisher_bucket import LOCALSTACK_IMAGE, Bucket, Team, answers, eventually, need_image
from testcontainers.core.container import DockerContainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "airbridge")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "airbridge")


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    need_image(LOCALSTACK_IMAGE)
    with DockerContainer(LOCALSTACK_IMAGE).with_env("SERVICES", "s3").with_exposed_ports(4566) as container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(4566)}"
        try:
            eventually(lambda: answers(f"{url}/_airbridge/health"), f"for {LOCALSTACK_IMAGE}")
        except AssertionError:
            print(*container.get_logs())
            raise
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Bucket:
    return Bucket(s3_url)


@pytest.fixture
def team(bucket: Bucket, tmp_path: Path) -> Team:
    """A team with one DAG in its folder, and nothing published."""
    made = Team(bucket, tmp_path / "dags")
    made.write("daily")
    return made


@pytest.fixture
def other_team(bucket: Bucket, tmp_path: Path) -> Team:
    made = Team(bucket, tmp_path / "other", package="crm")
    made.write("hourly")
    return made
