"""Marks every test by the folder that it lies in, and runs the quick ones first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_KINDS = ("unit", "integration", "e2e")
_HERE = Path(__file__).parent

# Ryuk would have to come from a registry; the fixtures remove what they start by themselves.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


def _kind(item: pytest.Item) -> str:
    """Name of the folder below ``tests/``."""
    return item.path.relative_to(_HERE).parts[0]


# First of all, so that -m sees the marks and the folders below sort what is already in order.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _kind(item) in _KINDS:
            item.add_marker(_kind(item))
    items.sort(key=lambda item: _KINDS.index(_kind(item)) if _kind(item) in _KINDS else len(_KINDS))
