"""S3 through the uplink, the DAG store, and free disk."""

from __future__ import annotations

import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from airbridge.edge.diag._model import Check, Context, Failed
from airbridge.edge.sysinfo import BYTES_PER_MIB
from airbridge.sync.store import current_tree

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STORAGE_CHECKS"]


def _client(context: Context) -> Any:
    settings = context.settings
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.aws_default_region,
        aws_access_key_id=settings.worker_name,
        aws_secret_access_key=settings.token,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=context.limits.timeout_s,
            read_timeout=context.limits.timeout_s,
            retries={"total_max_attempts": 1},
            proxies={},
        ),
    )


def _failure(error: BotoCoreError | ClientError, what: str, bucket: str, setting: str, url: str) -> Failed:
    if isinstance(error, BotoCoreError):
        return Failed(
            f"{what}: no S3 at {url} ({type(error).__name__})",
            "start the uplink, and look at S3 on the control plane: make status",
        )
    code = str(error.response.get("Error", {}).get("Code", "?"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    value = f"{what}: S3 answers {status} {code}"
    if code == "NoSuchBucket":
        return Failed(value, f"set {setting} to the control plane's bucket (now {bucket})")
    if status in (401, 403):
        return Failed(
            value,
            f"check the token (line 'token'), and {setting} and ENVIRONMENT against the control plane's",
        )
    return Failed(value, "look at S3 on the control plane: make status, then the log of localstack")


def _s3_read(context: Context) -> str:
    settings = context.settings
    what = f"list s3://{settings.dag_bucket}/{settings.environment}/"
    started = time.perf_counter()
    try:
        answer = _client(context).list_objects_v2(
            Bucket=settings.dag_bucket, Prefix=f"{settings.environment}/", MaxKeys=1
        )
    except (BotoCoreError, ClientError) as error:
        raise _failure(error, what, settings.dag_bucket, "DAG_BUCKET", settings.s3_endpoint_url) from None
    if "KeyCount" not in answer:
        raise Failed(f"{what}: what answers at {settings.s3_endpoint_url} is not S3", "check S3_ENDPOINT_URL")
    content = "has objects" if answer.get("KeyCount") else "is empty"
    return f"{what} {content}, {(time.perf_counter() - started) * 1000:.0f} ms"


def _s3_write(context: Context) -> str:
    """Write and read back one small object, always the same key: a worker may not delete."""
    settings = context.settings
    key = f"{settings.environment}/diag/{settings.worker_name}/probe"
    what = f"write s3://{settings.log_bucket}/{key}"
    sent = secrets.token_bytes(64)
    started = time.perf_counter()
    try:
        client = _client(context)
        client.put_object(Bucket=settings.log_bucket, Key=key, Body=sent)
        received = client.get_object(Bucket=settings.log_bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise _failure(error, what, settings.log_bucket, "LOG_BUCKET", settings.s3_endpoint_url) from None
    if received != sent:
        raise Failed(
            f"{what}: what came back is not what was written", "something between caches S3: exempt it"
        )
    return f"{what} and read it back, {(time.perf_counter() - started) * 1000:.0f} ms"


def _dag_store(context: Context) -> str:
    store = context.settings.dag_store
    if not store.is_dir():
        raise Failed(f"{store} is not there", "mount the DAG store's volume at DAG_STORE, read-only")
    tree = current_tree(store)
    if tree is None:
        raise Failed(
            f"{store} has no current tree",
            "dag-sync has not finished a sync: docker compose -f compose.edge.yaml logs dag-sync",
        )
    packages = sum(1 for entry in tree.path.iterdir() if entry.is_dir())
    return f"tree {tree.hash}, {packages} package{'' if packages == 1 else 's'}"


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _disk(context: Context) -> str:
    settings = context.settings
    free = shutil.disk_usage(_existing(settings.edge_state_dir)).free // BYTES_PER_MIB
    value = f"{free} MiB free at {settings.edge_state_dir}"
    if free < settings.edge_min_free_disk_mb:
        raise Failed(
            f"{value}, at least {settings.edge_min_free_disk_mb} are wanted",
            "free space there (old images: docker system df), or lower EDGE_MIN_FREE_DISK_MB",
        )
    return value


STORAGE_CHECKS: Final = (
    Check("s3 read", _s3_read, needs=("uplink get",)),
    Check("s3 write", _s3_write, needs=("uplink get",)),
    Check("dag store", _dag_store, needs=("settings",)),
    Check("free disk", _disk, needs=("settings",)),
)
