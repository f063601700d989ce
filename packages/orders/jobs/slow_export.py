"""Time limits: of an attempt, and of the whole run with its waiting and its retries."""

from __future__ import annotations

import time

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Work for as many seconds as the first argument says."""
    seconds = float(argv[0])
    print(f"exporting for {seconds:g} s")
    time.sleep(seconds)
    print("exported")
    return 0


JOB = Job(
    main,
    "Export slowly, within ten seconds",
    args=["0.5"],
    execution_timeout="10s",
    dagrun_timeout="1h",
)
