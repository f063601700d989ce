"""The tally of attacks on a running stack: how many were tried, how many got through.

A test says of each attack whether it got through; one that did fails the test, and is counted all the same::

    attacks.tried("second Authorization header", got_through=answer.status_code == 200)

The end of the test run reports the tally (the hook is in ``conftest.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Attack", "attacks", "summary"]


@dataclass(frozen=True)
class Attack:
    """One attack that was tried."""

    name: str
    got_through: bool


class _Tally:
    def __init__(self) -> None:
        self.all: list[Attack] = []

    def tried(self, name: str, got_through: bool, detail: object = "") -> None:
        """Count an attack, and fail the test if it got through.

        :param detail: what the stack did, for the message of a failed test
        """
        self.all.append(Attack(name, got_through))
        assert not got_through, f"attack got through: {name}: {detail}"


attacks = _Tally()


def summary() -> list[str]:
    """Return the lines of the report; none where no attack was tried."""
    if not attacks.all:
        return []
    through = [attack.name for attack in attacks.all if attack.got_through]
    lines = [f"attacks tried {len(attacks.all)}, got through {len(through)}"]
    return [*lines, *(f"  got through: {name}" for name in through)]
