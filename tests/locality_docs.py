"""The DAGs in docs/locality.md, as files."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["PAGE", "patterns"]

PAGE = Path(__file__).parents[1] / "docs" / "locality.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"^(locality_\w+)\(\)$", re.MULTILINE)


def patterns() -> dict[str, str]:
    """Return the text of each Python block by the DAG that it defines."""
    found: dict[str, str] = {}
    for block in _BLOCK.findall(PAGE.read_text()):
        (dag_id,) = _CALL.findall(block)
        assert dag_id not in found, f"{PAGE.name} defines {dag_id} twice"
        found[dag_id] = block
    return found
