"""The one-shot work before the services start: settings checked, schema, users, buckets.

Safe to repeat, quick when done.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg2

from airbridge.controlplane._database import connect, first_line, migrate, users
from airbridge.controlplane._indexes import install_indexes
from airbridge.controlplane._secrets import read_secret
from airbridge.controlplane._settings import check_settings
from airbridge.dispatch.queue import install_notifications
from airbridge.errors import AirbridgeError, SettingsError, UnreachableError
from airbridge.identity.store import SCHEMA_VERSION, migrate_schema

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["initialize"]


def initialize(secrets_root: Path) -> None:
    """Bring the metadata database and S3 to the state that the services expect.

    Raises:
        AirbridgeError: what could not be done, and what to do about it.
    """
    check_settings()
    _say("database migrated" if migrate() else "database is up to date")
    _ensure_worker_tables()
    _ensure_admin(secrets_root)
    _ensure_buckets()


def _say(line: str) -> None:
    print(f"init: {line}", flush=True)


def _ensure_worker_tables() -> None:
    connection = connect()
    try:
        made = migrate_schema(connection)
        install_notifications(connection)
        install_indexes(connection)
    except psycopg2.Error as error:
        raise AirbridgeError(
            f"the tables of the edge workers could not be made: {first_line(error)}",
            fix="docker compose logs postgres",
        ) from error
    finally:
        connection.close()
    _say(f"worker tables {'migrated to' if made else 'are of'} version {SCHEMA_VERSION}")


def _ensure_admin(secrets_root: Path) -> None:
    name = os.environ.get("AIRBRIDGE_ADMIN_USER", "admin")
    connection = connect()
    try:
        present = users(connection)
    finally:
        connection.close()
    if name in present:
        _say(f"user '{name}' exists")
        return
    password = read_secret(secrets_root, "admin-password")
    result = subprocess.run(
        [sys.executable, "-m", "airbridge.controlplane._admin_user", name],
        input=password,
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        reason = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
        raise AirbridgeError(
            f"user '{name}' could not be made: {''.join(reason)}", fix="docker compose logs init"
        )
    _say(f"user '{name}' made with password {password} (shown once; 'make password' prints it again)")


def _ensure_buckets() -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    endpoint = os.environ.get("S3_ENDPOINT_URL") or None
    try:
        client = boto3.client("s3", endpoint_url=endpoint)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"S3 cannot be asked: {error}", fix="check S3_ENDPOINT_URL and AWS_DEFAULT_REGION"
        ) from error
    for variable in ("DAG_BUCKET", "LOG_BUCKET"):
        bucket = os.environ.get(variable, "")
        if not bucket:
            raise SettingsError(f"{variable} is not set", fix="name a bucket, such as airbridge-dags")
        try:
            made = _ensure_bucket(client, bucket)
        except ClientError as error:
            raise AirbridgeError(
                f"bucket '{bucket}' ({variable}) cannot be used: {error.response['Error']['Code']}",
                fix="check the credentials and the name; bucket names are global on AWS",
            ) from error
        except BotoCoreError as error:
            raise UnreachableError(
                f"S3 at {endpoint or 'AWS'} did not answer: {error}", fix="docker compose ps localstack"
            ) from error
        _say(f"bucket '{bucket}' {'made' if made else 'exists'}, versioned")


def _ensure_bucket(client: object, bucket: str) -> bool:
    from botocore.exceptions import ClientError

    made = False
    try:
        client.head_bucket(Bucket=bucket)  # type: ignore[attr-defined]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client.create_bucket(Bucket=bucket, **where)  # type: ignore[attr-defined]
        made = True
    status = client.get_bucket_versioning(Bucket=bucket).get("Status")  # type: ignore[attr-defined]
    if status != "Enabled":
        client.put_bucket_versioning(  # type: ignore[attr-defined]
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )
    return made
