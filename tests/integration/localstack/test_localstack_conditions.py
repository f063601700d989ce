"""Conditional writes: of those that race, one wins, whatever else happens to the object meanwhile."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3_server import S3Server

WRITERS = 16
ROUNDS = 20
TURNS = 100
BODY = bytes(16 * 1024 * 1024)
REFUSALS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}
KEY = "dev/sales/metadata.json"


def wins(
    client: Any, bucket: str, key: str, start: threading.Barrier, *, body: bytes = b"x", **condition: str
) -> bool:
    """Write when all are ready; tell whether the condition held. Any other failure is one of the test."""
    start.wait()
    try:
        client.put_object(Bucket=bucket, Key=key, Body=body, **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSALS:
            raise
        return False
    return True


def test_of_many_that_create_an_object_at_once_one_wins(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    clients = [s3_server.client() for _ in range(WRITERS)]
    start = threading.Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            won = list(
                pool.map(lambda c, key=f"new-{number}": wins(c, bucket, key, start, IfNoneMatch="*"), clients)
            )
            assert won.count(True) == 1
            assert len(s3.list_object_versions(Bucket=bucket, Prefix=f"new-{number}")["Versions"]) == 1


def test_of_many_that_replace_an_object_at_once_one_wins(
    s3_server: S3Server, s3: S3Client, bucket: str
) -> None:
    clients = [s3_server.client() for _ in range(WRITERS)]
    start = threading.Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        for number in range(ROUNDS):
            etag = s3.put_object(Bucket=bucket, Key=KEY, Body=f"round {number}".encode())["ETag"]
            won = list(pool.map(lambda c, etag=etag: wins(c, bucket, KEY, start, IfMatch=etag), clients))
            assert won.count(True) == 1


@pytest.mark.parametrize("other", ["copy", "delete"])
def test_conditional_write_does_not_go_over_a_change_that_it_did_not_see(
    s3_server: S3Server, s3: S3Client, bucket: str, other: str
) -> None:
    writer, disturber = s3_server.client(), s3_server.client()
    old = s3.put_object(Bucket=bucket, Key=KEY, Body=b"first")["VersionId"]
    source = {"Bucket": bucket, "Key": KEY, "VersionId": old}
    start = threading.Barrier(2)

    def disturb(pause: float) -> str:
        start.wait()
        time.sleep(pause)
        if other == "copy":
            return str(disturber.copy_object(Bucket=bucket, Key=KEY, CopySource=source)["VersionId"])
        return str(disturber.delete_object(Bucket=bucket, Key=KEY)["VersionId"])

    begun = time.monotonic()
    writer.put_object(Bucket=bucket, Key=KEY, Body=BODY)
    takes = time.monotonic() - begun
    with ThreadPoolExecutor(2) as pool:
        for number in range(TURNS):
            etag = s3.put_object(Bucket=bucket, Key=KEY, Body=f"turn {number}".encode())["ETag"]
            # Large enough to be on its way to the disk for a while. The other one comes a little later each
            # turn, and so gets in between sooner or later.
            first = pool.submit(wins, writer, bucket, KEY, start, body=BODY, IfMatch=etag)
            second = pool.submit(disturb, takes * number / TURNS)
            won, version = first.result(), second.result()
            # It asked for what was there before the other one, so it came before the other one.
            assert not won or newest(s3, bucket) == version


def newest(s3: S3Client, bucket: str) -> str:
    """Version id of the object, or of the delete marker over it."""
    try:
        return s3.head_object(Bucket=bucket, Key=KEY)["VersionId"]
    except ClientError as error:
        return str(error.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"])
