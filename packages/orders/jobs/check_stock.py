"""The form with a tuple and a dict of options: no import from airbridge at all."""

from orders.ledger import read_orders


def check(argv):
    """Look for orders of nothing."""
    empty = [order.number for order in read_orders() if not order.amount]
    print(f"{len(empty)} orders of nothing")
    return 1 if empty else 0


JOB = (
    check,
    "Check that no order is empty",
    {"schedule": "@daily", "group": "daily orders", "execution_timeout": "10m", "queue": "default"},
)
