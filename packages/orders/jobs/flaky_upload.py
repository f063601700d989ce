"""Retries with backoff: the first two attempts fail."""

from __future__ import annotations

import os

from airbridge.jobs import Job

SUCCEEDS_AT = 3


def main(argv: list[str]) -> int:
    """Fail until the third attempt."""
    attempt = int(os.environ.get("AIRFLOW_CTX_TRY_NUMBER", "1"))
    print(f"attempt {attempt}")
    if attempt < SUCCEEDS_AT:
        raise ConnectionError(f"the shop did not answer attempt {attempt}")
    print("uploaded")
    return 0


JOB = Job(
    main,
    "Upload to a shop that answers the third time",
    retries=3,
    retry_delay="1s",
    retry_exponential_backoff=True,
    max_retry_delay="4s",
)
