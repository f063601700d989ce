"""What needs Airflow to be checked: the dag bundle, and the edge door before the stock edge API."""

from __future__ import annotations

import ast
import json

import pytest
from tests.integration.controlplane.checks_in_image import MODULES
from tests.integration.controlplane.controlplane_containers import AIRFLOW, HERE, Lab

CHECKS = [
    node.name
    for module in MODULES
    for node in ast.parse((HERE / f"{module}.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def results(lab: Lab) -> dict[str, str]:
    """Outcome of every check, from one container."""
    done = lab.run(AIRFLOW, "python", "/checks/checks_in_image.py", mounts={HERE: "/checks:ro"})
    assert done.code == 0, done.text
    parsed: dict[str, str] = json.loads(done.out.splitlines()[-1])
    return parsed


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_image(results: dict[str, str], check: str) -> None:
    assert results.get(check, "did not run") == ""
