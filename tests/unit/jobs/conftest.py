from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from job_packages import Packages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    root = tmp_path / "packages"
    root.mkdir()
    return Packages(root)
