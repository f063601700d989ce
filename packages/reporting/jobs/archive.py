"""Waits for a job of its own package."""

from __future__ import annotations

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Archive."""
    print("the report is in the archive")
    return 0


JOB = Job(main, "Archive the daily report", depends_on=["daily_report"])
