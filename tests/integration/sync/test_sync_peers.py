"""What dag-sync sees and ``aws s3 sync`` does not: the reason why dag-sync compares contents, not times."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sync_stack import CREDENTIALS

if TYPE_CHECKING:
    from sync_stack import DagBucket, DagSync

PATH = "sales/dags/daily.py"
# How often two writes are tried to fall into one second; the first nearly always does on a quiet machine.
ATTEMPTS = 10


def _aws_s3_sync(bucket: DagBucket, target: Path) -> None:
    aws = Path(sys.executable).with_name("aws")
    done = subprocess.run(
        [str(aws), "--endpoint-url", bucket.server.url, "s3", "sync", f"s3://{bucket.name}/dev/", str(target)],
        env={**CREDENTIALS, "AWS_DEFAULT_REGION": "us-east-1", "PATH": "/usr/bin:/bin", "HOME": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _same_second_edit(bucket: DagBucket, first: str, second: str, between: object) -> bool:
    """Write two contents of one size within one second, with ``between`` in the middle; tell whether it was."""
    time.sleep(1 - time.time() % 1)  # the whole second is ahead
    bucket.put(PATH, first)
    assert callable(between)
    between()
    bucket.put(PATH, second)
    listed = bucket.client.list_object_versions(Bucket=bucket.name, Prefix=f"dev/{PATH}")["Versions"][:2]
    return len({int(version["LastModified"].timestamp()) for version in listed}) == 1


def test_edit_of_equal_size_within_a_second_escapes_aws_s3_sync_but_not_dag_sync(
    bucket: DagBucket, dag_sync: DagSync, tmp_path: Path
) -> None:
    """S3 tells times in seconds, and ``aws s3 sync`` compares nothing but size and time."""
    for attempt in range(ATTEMPTS):
        first, second = f"release = {attempt}1\n", f"release = {attempt}2\n"
        target = tmp_path / f"aws-{attempt}"
        target.mkdir()
        if _same_second_edit(bucket, first, second, lambda target=target: _aws_s3_sync(bucket, target)):
            break
    else:
        pytest.fail(f"no two writes fell into one second in {ATTEMPTS} attempts: this machine is too busy")

    _aws_s3_sync(bucket, target)
    assert (target / PATH).read_text() == first, "aws s3 sync has learned to see it: say so in the docs"
    dag_sync.shows({PATH: second.encode()})
