"""Notification: who is told when it fails is an Airflow connection, and none of this job's business."""

from __future__ import annotations

import sys

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Fail when it is told to."""
    if "--fail" in argv:
        print("the bell cannot be rung", file=sys.stderr)
        return 3
    print("ding")
    return 0


JOB = Job(
    main,
    "Ring a bell, or tell the webhook 'orders_alarm' that it could not be rung",
    on_failure={"webhook": {"connection": "orders_alarm", "endpoint": "alarm"}},
    tags=["alarm"],
)
