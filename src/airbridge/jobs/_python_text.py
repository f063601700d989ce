"""Write values as Python source: safe whatever they hold, and laid out as ``ruff format`` would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airbridge.python_literal import literal

__all__ = ["Call", "Name", "python_text"]

_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Name:
    """A name that stands in the source as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call in the source, such as ``timedelta(seconds=5)``."""

    function: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    one_line: bool = False
    """For calls that are known to be short; any other is spread over lines, which a formatter leaves so."""


def python_text(value: Any, indent: int = 0) -> str:
    """Return the source of a value whose first line stands ``indent`` levels deep."""
    match value:
        case Name():
            return value.text
        case Call():
            return _call(value, indent)
        case list():
            return _spread("[", "]", [python_text(item, indent + 1) for item in value], indent)
        case dict():
            items = [f"{literal(key)}: {python_text(item, indent + 1)}" for key, item in value.items()]
            return _spread("{", "}", items, indent)
    return literal(value)


def _call(call: Call, indent: int) -> str:
    depth = 0 if call.one_line else indent + 1
    items = [python_text(item, depth) for item in call.args]
    items += [f"{name}={python_text(item, depth)}" for name, item in call.kwargs.items()]
    if call.one_line:
        return f"{call.function}({', '.join(items)})"
    return _spread(f"{call.function}(", ")", items, indent)


def _spread(opening: str, closing: str, items: list[str], indent: int) -> str:
    """One item a line with a comma after the last: a formatter does not join such lines again."""
    if not items:
        return opening + closing
    inner = _INDENT * (indent + 1)
    lines = "".join(f"{inner}{item},\n" for item in items)
    return f"{opening}\n{lines}{_INDENT * indent}{closing}"
