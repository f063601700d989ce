"""Write a value as Python source: safe whatever it holds, and as ``ruff format`` would leave it.

Generated DAG files hold what people wrote: descriptions, arguments, schedules. Whatever that is, it stays a
literal.
"""

from __future__ import annotations

import math

__all__ = ["literal"]


def literal(value: object) -> str:
    """Return the literal of a text, number, truth value or None, on one line.

    Raises :class:`TypeError` for anything else.
    """
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value).replace("e+", "e")  # as formatters write it
    if not isinstance(value, str):
        raise TypeError(f"there is no literal of {type(value).__name__}")
    # The formatter's rule: double quotes, unless single ones need fewer escapes.
    quote = "'" if value.count('"') > value.count("'") else '"'
    return f"{quote}{''.join(_escaped(character, quote) for character in value)}{quote}"


def _escaped(character: str, quote: str) -> str:
    if character in ("\\", quote):
        return f"\\{character}"
    # repr() knows what cannot be printed; the other quote needs no escape here.
    return character if character in "'\"" else repr(character)[1:-1]
