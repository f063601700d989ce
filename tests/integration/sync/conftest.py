from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

import pytest
from sync_stack import LOCALSTACK_IMAGE, DagBucket, DagSync, S3Server, eventually, need_image
from testcontainers.core.container import DockerContainer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    need_image(LOCALSTACK_IMAGE)
    with DockerContainer(LOCALSTACK_IMAGE).with_env("SERVICES", "s3").with_exposed_ports(4566) as container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(4566)}"

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"{url}/_localstack/health", timeout=3) as answer:
                    return answer.status == 200
            except OSError:
                return False

        try:
            eventually(ready, f"for {LOCALSTACK_IMAGE}")
        except AssertionError:
            print(*container.get_logs())
            raise
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        address = wrapped.attrs["NetworkSettings"]["IPAddress"]
        yield S3Server(url, f"http://{address}:4566")


@pytest.fixture
def bucket(s3_server: S3Server) -> DagBucket:
    return DagBucket(s3_server)


@pytest.fixture
def dag_sync(bucket: DagBucket, tmp_path: Path) -> Iterator[DagSync]:
    sync = DagSync(bucket.environment(), tmp_path)
    eventually(sync.healthy, "for the first sync")
    yield sync
    sync.stop()
