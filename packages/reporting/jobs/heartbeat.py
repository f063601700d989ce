"""Again and again: every quarter of an hour, from the moment that it is switched on."""

from __future__ import annotations

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Be there."""
    print("still here")
    return 0


JOB = Job(main, "Say that reporting is there", schedule={"every": "15m"}, catchup=False)
