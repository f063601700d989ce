"""The mark of a generated file: its first line, with a checksum of the rest.

Only a file that is exactly as it was generated is ever overwritten or removed; what a person changed or wrote
stays.
"""

from __future__ import annotations

import enum
import hashlib
import re

__all__ = ["Origin", "mark", "origin_of"]

_MARK = re.compile(rb"# airbridge-generated: sha256=([0-9a-f]{64})")


class Origin(enum.Enum):
    """Who made a file."""

    GENERATED = "generated"
    EDITED = "generated, then edited"
    FOREIGN = "not generated"


def mark(text: str) -> bytes:
    """Return a file: the mark, then ``text``."""
    body = text.encode()
    return b"# airbridge-generated: sha256=" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def origin_of(content: bytes) -> Origin:
    """Tell who made a file."""
    first, _, rest = content.partition(b"\n")
    match = _MARK.fullmatch(first)
    if not match:
        return Origin.FOREIGN
    return Origin.GENERATED if hashlib.sha256(rest).hexdigest().encode() == match[1] else Origin.EDITED
