"""Everything that a job says is in the task's log: stdout, stderr, logging, warnings."""

from __future__ import annotations

import logging
import sys
import warnings

from airbridge.jobs import Job

log = logging.getLogger("orders.talk")


def main(argv: list[str]) -> None:
    """Say something everywhere."""
    print("said to stdout")
    print("said to stderr", file=sys.stderr)
    log.info("said to the log")
    log.warning("warned in the log")
    warnings.warn("warned by warnings", stacklevel=1)


JOB = Job(main, "Talk on every channel", tags=["logging"], owner="customer care")
