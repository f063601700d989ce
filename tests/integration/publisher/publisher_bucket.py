"""LocalStack, an empty bucket in it, and a publisher with a folder: what the tests beside it share."""

from __future__ import annotations

import os
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import docker
import pytest
from botocore.config import Config

from airbridge.publisher._files import read_folder
from airbridge.publisher._import_check import ImportCheck
from airbridge.publisher._publish import Published, publish
from airbridge.publisher._s3 import Store
from airbridge.publisher._settings import Settings, load_settings
from airbridge.publisher._validate import Checks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOCALSTACK_IMAGE = os.environ.get("AIRBRIDGE_LOCALSTACK_IMAGE", "airbridge/localstack:0.1.0")
AIRFLOW_IMAGE = os.environ.get("AIRBRIDGE_AIRFLOW_IMAGE", "airbridge/airflow:0.1.0")
PATIENCE = 120.0  # seconds; containers start beside other tests
STATIC = Checks(image=AIRFLOW_IMAGE, import_check=ImportCheck.NEVER)


def need_image(name: str) -> None:
    try:
        docker.from_env().images.get(name)
    except docker.errors.ImageNotFound:
        pytest.fail(f"image {name} is missing: run make build", pytrace=False)


def eventually(probe: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < until, f"waited {PATIENCE} s in vain {what}"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@cache
def s3_client(url: str) -> Any:
    """One for all buckets: making a client takes longer than most requests."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="airbridge",
        aws_secret_access_key="airbridge",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=20),
    )


class Bucket:
    """A versioned bucket of a test's own, and what anybody can see in it."""

    def __init__(self, url: str, *, versioned: bool = True) -> None:
        self.url = url
        self.name = f"publisher-{uuid.uuid4().hex[:12]}"
        self.client = s3_client(url)
        self.client.create_bucket(Bucket=self.name)
        if versioned:
            self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def settings(self) -> Settings:
        return load_settings(dag_bucket=self.name, environment="dev", s3_endpoint_url=self.url)

    def store(self, **options: Any) -> Store:
        return Store(self.settings(), **options)

    def environment(self) -> dict[str, str]:
        return {
            "DAG_BUCKET": self.name,
            "ENVIRONMENT": "dev",
            "S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "airbridge",
            "AWS_SECRET_ACCESS_KEY": "airbridge",
        }

    def put(self, path: str, body: str | bytes) -> str:
        data = body.encode() if isinstance(body, str) else body
        answer = self.client.put_object(Bucket=self.name, Key=f"dev/{path}", Body=data)
        return str(answer.get("VersionId", ""))

    def get(self, path: str, version_id: str = "") -> bytes:
        extra = {"VersionId": version_id} if version_id else {}
        body: bytes = self.client.get_object(Bucket=self.name, Key=f"dev/{path}", **extra)["Body"].read()
        return body

    def paths(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {row["Key"].removeprefix("dev/") for page in pages for row in page.get("Contents", [])}

    def everything(self) -> set[tuple[str, str, bool]]:
        """Every version and delete marker: equal before and after, when nothing was touched."""
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name)
        return {
            (row["Key"], row["VersionId"], row["IsLatest"])
            for page in pages
            for row in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
        }

    def visible(self, package: str) -> tuple[str, dict[str, bytes]] | None:
        """What a reader that follows the manifest sees: the release, and its files at their versions."""
        from airbridge.manifest import read_manifest

        try:
            body = self.get(f"{package}/metadata.json")
        except self.client.exceptions.NoSuchKey:
            return None
        manifest = read_manifest(body, package)
        assert manifest is not None
        files = {file.path: self.get(f"{package}/{file.path}", file.version_id) for file in manifest.files}
        return manifest.release, files


def dag_file(package: str, name: str, *, note: str = "") -> str:
    return f'"""{note}"""\n\nfrom airflow.sdk import DAG\n\ndag = DAG("{package}_{name}")\n'


@dataclass
class Team:
    """A package team: a folder, and the publisher."""

    bucket: Bucket
    folder: Path
    package: str = "sales"
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, *, note: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = dag_file(self.package, name, note=note)
        (self.folder / f"{self.package}_{name}.py").write_text(text)

    def remove(self, name: str) -> None:
        (self.folder / f"{self.package}_{name}.py").unlink()

    def files(self) -> dict[str, bytes]:
        return {f"dags/{path.name}": path.read_bytes() for path in self.folder.iterdir()}

    def publish(self, store: Store | None = None, **options: Any) -> Published:
        return publish(
            store or self.bucket.store(),
            self.package,
            read_folder(self.folder),
            STATIC,
            published_by="ana@laptop",
            **{**self.options, **options},
        )
