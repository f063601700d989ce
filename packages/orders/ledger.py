"""What several jobs share: this module is no job, because it has no JOB."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

DATA = Path(__file__).parent / "data" / "orders.csv"


@dataclass(frozen=True)
class Order:
    """One line of the file."""

    number: int
    customer: str
    amount: Decimal


def read_orders(path: Path = DATA) -> list[Order]:
    """Read the orders that lie in the package."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Order(int(row["number"]), row["customer"], Decimal(row["amount"])) for row in csv.DictReader(file)
        ]


def total(orders: list[Order]) -> Decimal:
    """Add the amounts up."""
    return sum((order.amount for order in orders), Decimal(0))
