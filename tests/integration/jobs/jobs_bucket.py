"""A bucket in the project's real S3 service, and ``airflow-control-plane`` that publishes into it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from airbridge.manifest import MANIFEST_NAME, Manifest, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LOCALSTACK_IMAGE", "Site"]

LOCALSTACK_IMAGE = os.environ.get("AIRBRIDGE_LOCALSTACK_IMAGE", "airbridge/localstack:0.1.0")

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "airbridge", "AWS_SECRET_ACCESS_KEY": "airbridge"}


@dataclass
class Site:
    """A packages' root, and a fresh versioned bucket."""

    root: Path
    url: str
    bucket: str = field(default_factory=lambda: f"jobs-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        self.s3.create_bucket(Bucket=self.bucket)
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    # --- packages ---------------------------------------------------------------------------------

    def job(self, path: str, text: str = "def main(argv): ...\nJOB = (main, 'Load')\n") -> None:
        """Write a module below the packages' root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def remove(self, path: str) -> None:
        """Remove a file or a folder below the packages' root."""
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()

    # --- programs ---------------------------------------------------------------------------------

    def environment(self, **settings: str) -> dict[str, str]:
        """What the programs get."""
        return {
            "PATH": os.environ["PATH"],
            "ETL_PACKAGES_ROOT": str(self.root),
            "S3_ENDPOINT_URL": self.url,
            "DAG_BUCKET": self.bucket,
            "ENVIRONMENT": "dev",
            "AWS_DEFAULT_REGION": "us-east-1",
            **_CREDENTIALS,
            **settings,
        }

    def run(self, module: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the project."""
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            check=False,
        )

    def sync(self) -> dict[str, tuple[str, str]]:
        """Make one pass; return outcome and reason of each package."""
        done = self.run("airbridge.jobs", "sync", "--publish", "--json")
        assert done.returncode == 0, done.stderr
        return {row["package"]: (row["outcome"], row["why"]) for row in json.loads(done.stdout)["releases"]}

    def outcomes(self) -> dict[str, str]:
        """Make one pass; return the outcome of each package."""
        return {package: outcome for package, (outcome, _) in self.sync().items()}

    # --- bucket -----------------------------------------------------------------------------------

    def put(self, key: str, text: str) -> None:
        """Write an object, as ``aws s3 cp`` would."""
        self.s3.put_object(Bucket=self.bucket, Key=f"dev/{key}", Body=text.encode())

    def object_keys(self) -> list[str]:
        """Keys below the environment."""
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="dev/")
        return [row["Key"].removeprefix("dev/") for row in answer.get("Contents", [])]

    def versions(self) -> list[tuple[str, str]]:
        """Every version of every object, and every delete marker: what any write changes."""
        answer = self.s3.list_object_versions(Bucket=self.bucket)
        rows: list[dict[str, Any]] = [*answer.get("Versions", []), *answer.get("DeleteMarkers", [])]
        return sorted((row["Key"], row["VersionId"]) for row in rows)

    def manifest(self, package: str) -> Manifest:
        """The current release of a package."""
        body = self.s3.get_object(Bucket=self.bucket, Key=f"dev/{package}/{MANIFEST_NAME}")["Body"].read()
        found = read_manifest(body, package)
        assert found is not None
        return found

    def content(self, package: str) -> dict[str, bytes]:
        """What a reader of the current release gets: each file at its version."""
        return {
            file.path: self.s3.get_object(
                Bucket=self.bucket, Key=f"dev/{package}/{file.path}", VersionId=file.version_id
            )["Body"].read()
            for file in self.manifest(package).files
        }
