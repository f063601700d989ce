"""LocalStack, a bucket in it, and dag-sync as a process: what the integration tests of dag-sync share."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image comes from a registry

import boto3
import docker
from botocore.config import Config
from tests.release_writer import ReleaseWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCALSTACK_IMAGE = os.environ.get("AIRBRIDGE_LOCALSTACK_IMAGE", "airbridge/localstack:0.1.0")
DAG_SYNC_IMAGE = os.environ.get("AIRBRIDGE_DAG_SYNC_IMAGE", "airbridge/dag-sync:0.1.0")
PATIENCE = 60.0  # seconds; containers start beside other tests
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "airbridge", "AWS_SECRET_ACCESS_KEY": "airbridge"}


def eventually(probe: Callable[[], Any], what: str = "") -> Any:
    """Wait until ``probe`` returns something true, and return it."""
    until = time.monotonic() + PATIENCE
    while not (value := probe()):
        assert time.monotonic() < until, f"waited {PATIENCE} s in vain {what}"
        time.sleep(0.05)
    return value


def need_image(name: str) -> None:
    try:
        docker.from_env().images.get(name)
    except docker.errors.ImageNotFound:
        pytest.fail(f"image {name} is missing: run make build", pytrace=False)


@dataclass(frozen=True)
class S3Server:
    """LocalStack, as seen from this host and from other containers."""

    url: str
    inside_url: str


class DagBucket:
    """A fresh versioned bucket, written with boto3 as a publisher does."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.name = f"sync-{uuid.uuid4().hex[:12]}"
        self.client = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=20),
        )
        self.client.create_bucket(Bucket=self.name)
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def put(self, path: str, body: str | bytes) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.write(f"dev/{path}", data)

    def write(self, key: str, body: bytes, **conditions: str) -> tuple[str, str]:
        """Write an object and return its ETag and version; ``IfMatch`` and ``IfNoneMatch`` are conditions."""
        answer = self.client.put_object(Bucket=self.name, Key=key, Body=body, **conditions)
        return str(answer["ETag"]).strip('"'), str(answer.get("VersionId", ""))

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def writer(self) -> ReleaseWriter:
        """Return one who writes releases into this bucket."""
        return ReleaseWriter(self.write)

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"dev/{path}")

    def versions(self, path: str) -> list[str]:
        """Return the ids of all versions of an object, newest first."""
        answer = self.client.list_object_versions(Bucket=self.name, Prefix=f"dev/{path}")
        return [version["VersionId"] for version in answer["Versions"]]

    def environment(self) -> dict[str, str]:
        return {
            "DAG_BUCKET": self.name,
            "ENVIRONMENT": "dev",
            "S3_ENDPOINT_URL": self.server.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            **CREDENTIALS,
        }


class DagSync:
    """dag-sync as a process of this host."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.store = directory / "store"
        self.store.mkdir(exist_ok=True)
        self.log_file = directory / "log"
        environment = {
            "PATH": os.environ["PATH"],
            "DAG_STORE": str(self.store),
            "HEALTH_PORT": str(self.port),
            "DAG_SYNC_POLL_INTERVAL": "0.2",
            "DAG_SYNC_INTERVAL": "5",
        } | environment
        with self.log_file.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airbridge.sync"], env=environment, stdout=output, stderr=output
            )

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=3) as answer:
                return bool(answer.status == 200)
        except OSError:  # HTTPError is one
            return False

    def health(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=3) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as refusal:
            return dict(json.load(refusal))

    def post(self, path: str) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def tree(self) -> str:
        """Return the name of the current tree."""
        return (self.store / "current").resolve().name

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def seen(self) -> dict[str, bytes]:
        """Read the current tree, resolved once as a reader must."""
        tree = (self.store / "current").resolve()
        return {
            file.relative_to(tree).as_posix(): file.read_bytes() for file in tree.rglob("*") if file.is_file()
        }

    def shows(self, expected: dict[str, bytes]) -> None:
        eventually(lambda: self.seen() == expected, f"for {sorted(expected)}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
