"""Waits for two jobs of another package: it runs when both have succeeded since its last run."""

from __future__ import annotations

from airbridge.jobs import Job


def main(argv: list[str]) -> int:
    """Report."""
    print("orders were imported and checked: here is the report")
    return 0


JOB = Job(
    main,
    "Report on the orders of the day",
    depends_on=["orders.import_orders", "orders.check_stock"],
    group="daily orders",
)
