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


@pytest.fixture
def aws_s3_sync(bucket: DagBucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """The AWS CLI's own ``s3 sync``, in this process."""
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": "us-east-1", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    driver = create_clidriver()

    def sync(target: Path) -> None:
        source = f"s3://{bucket.name}/dev/"
        assert driver.main(["--endpoint-url", bucket.server.url, "s3", "sync", source, str(target)]) == 0

    return sync


def test_edit_of_equal_size_escapes_aws_s3_sync_but_not_dag_sync(
    bucket: DagBucket, dag_sync: DagSync, aws_s3_sync: Callable[[Path], None], tmp_path: Path
) -> None:
    """On the way down ``aws s3 sync`` ignores objects of equal size, unless the local file is the newer one
    (``aws s3 sync help``, option ``--exact-timestamps``)."""
    target = tmp_path / "aws"
    bucket.put(PATH, "release = 1\n")
    aws_s3_sync(target)
    time.sleep(1.1)  # S3 tells times in seconds: the edit has a later one
    bucket.put(PATH, "release = 2\n")
    aws_s3_sync(target)
    assert (target / PATH).read_text() == "release = 1\n", "aws s3 sync sees it now: say so in the docs"
    dag_sync.shows({PATH: b"release = 2\n"})
