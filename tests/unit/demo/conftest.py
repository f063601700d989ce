"""The five demo services, running for one test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from demo_pipeline import ACTIONS, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    started = Pipeline(tmp_path)
    try:
        for name in ACTIONS:
            started.start(name)
        yield started
    finally:
        started.stop_all()
