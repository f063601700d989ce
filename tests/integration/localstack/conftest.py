"""The LocalStack image of this project, running hardened as in compose.yaml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# The reaper container of testcontainers would come from a registry; the fixtures here clean up themselves.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

import docker
import pytest
from s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

DEFAULT_IMAGE = "airbridge/localstack:0.1.0"


@pytest.fixture(scope="session")
def localstack_image() -> str:
    """Name of the image under test; it must have been built."""
    image = os.environ.get("AIRBRIDGE_LOCALSTACK_IMAGE", DEFAULT_IMAGE)
    try:
        docker.from_env().images.get(image)
    except docker.errors.ImageNotFound:
        pytest.exit(f"image {image} is missing: run make build", returncode=1)
    return image


@pytest.fixture(scope="session")
def s3_server(localstack_image: str) -> Iterator[S3Server]:
    """A server for the whole session; tests that restart it leave it running."""
    with S3Server(localstack_image) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> S3Client:
    """A client of the running server."""
    s3_server.ensure_running()
    return s3_server.client()


@pytest.fixture
def bucket(s3_server: S3Server, s3: S3Client, request: pytest.FixtureRequest) -> str:
    """A versioned bucket of the test's own."""
    name = s3_server.unused_bucket_name()
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name
