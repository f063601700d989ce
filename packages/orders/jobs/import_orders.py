"""A scheduled job that uses a module and a data file of its package."""

from __future__ import annotations

import logging

from airbridge.jobs import Job
from orders.ledger import read_orders, total

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Read the orders."""
    orders = read_orders()
    log.info("imported %d orders, %s in all", len(orders), total(orders))
    return 0


JOB = Job(
    main,
    "Import yesterday's orders",
    schedule="0 5 * * 1-5",
    timezone="Europe/Berlin",
    start_date="2026-01-01",
    max_active_runs=1,
    group="daily orders",
)
