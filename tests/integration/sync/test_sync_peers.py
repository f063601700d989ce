"""What dag-sync sees and ``aws s3 sync`` does not: the reason why dag-sync compares contents, not times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from awscli.clidriver import create_clidriver
from sync_stack import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sync_stack import DagBucket, DagSync

PATH = "sales/dags/daily.py"
# How often two writes are tried to fall into one second; the first nearly always does on a quiet machine.
ATTEMPTS = 10


@pytest.fixture
def aws_s3_sync(bucket: DagBucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """The AWS CLI's own ``s3 sync``, in this process: its start alone takes longer than the second."""
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": "us-east-1", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    driver = create_clidriver()

    def sync(target: Path) -> None:
        source = f"s3://{bucket.name}/dev/"
        assert driver.main(["--endpoint-url", bucket.server.url, "s3", "sync", source, str(target)]) == 0

    bucket.put("warm/dags/up.py", "")
    sync(tmp_path / "warm")
    bucket.delete("warm/dags/up.py")
    return sync


def _same_second_edit(bucket: DagBucket, first: str, second: str, between: Callable[[], None]) -> bool:
    """Write two contents of one size with ``between`` in the middle; tell whether one second saw both."""
    time.sleep(1 - time.time() % 1)  # the whole second is ahead
    bucket.put(PATH, first)
    between()
    bucket.put(PATH, second)
    listed = bucket.client.list_object_versions(Bucket=bucket.name, Prefix=f"dev/{PATH}")["Versions"][:2]
    return len({int(version["LastModified"].timestamp()) for version in listed}) == 1


def test_edit_of_equal_size_within_a_second_escapes_aws_s3_sync_but_not_dag_sync(
    bucket: DagBucket, dag_sync: DagSync, aws_s3_sync: Callable[[Path], None], tmp_path: Path
) -> None:
    """S3 tells times in seconds, and ``aws s3 sync`` compares nothing but size and time."""
    for attempt in range(ATTEMPTS):
        first, second = f"release = {attempt}1\n", f"release = {attempt}2\n"
        target = tmp_path / f"aws-{attempt}"
        target.mkdir()
        if _same_second_edit(bucket, first, second, lambda target=target: aws_s3_sync(target)):
            break
    else:
        pytest.fail(f"no two writes fell into one second in {ATTEMPTS} attempts: this machine is too busy")

    aws_s3_sync(target)
    assert (target / PATH).read_text() == first, "aws s3 sync has learned to see it: say so in the docs"
    dag_sync.shows({PATH: second.encode()})
