"""Runs inside the Airflow image, without a network: calls every ``check_*`` of the modules beside it.

Prints one JSON object, ``{name: error or ""}``. The test file outside asserts on it; starting a container and
importing Airflow once for each check would take minutes.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import traceback
from pathlib import Path

__all__ = ["MODULES"]

MODULES = (
    "bundle_checks",
    "command_run_checks",
    "earlier_parts_checks",
    "edge_door_checks",
    "executor_checks",
    "fleet_checks",
    "heartbeat_checks",
    "late_report_checks",
    "places_checks",
    "supervise_checks",
)


def _run() -> dict[str, str]:
    results = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for check in [value for key, value in vars(module).items() if key.startswith("check_")]:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    check(Path(folder))
                    results[check.__name__] = ""
                except Exception:
                    results[check.__name__] = traceback.format_exc()
    return results


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(_run()))
