"""``python -m airbridge.trace``: prints the way of the attempts that a document describes.

The document is what ``python -m airbridge.controlplane attempts`` prints; logs are files that
``docker compose logs --timestamps --no-color`` wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from airbridge.trace._lines import Step, container_steps, task_steps

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="airbridge-trace", description=__doc__)
    parser.add_argument("document", type=Path, help="the attempts")
    parser.add_argument("logs", nargs="*", help="HOST=FILE: logs of the control plane or of an edge host")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    attempts = json.loads(options.document.read_text())
    ids = [attempt["id"] for attempt in attempts]
    steps: list[Step] = []
    for attempt in attempts:
        steps += task_steps(attempt.pop("log"), ids)
    for given in options.logs:
        host, _, file = given.partition("=")
        with Path(file).open(errors="replace") as lines:
            steps += container_steps(host, lines, ids)
    steps.sort(key=lambda step: step.time)
    if options.json:
        print(json.dumps({"attempts": attempts, "steps": [_as_json(step) for step in steps]}, indent=1))
        return 0
    for attempt in attempts:
        print(_title(attempt))
    for step in steps:
        moment = step.time.strftime("%H:%M:%S.%f")[:-3]
        print(f"{moment}  {step.host:<14} {step.service:<12} {step.what}")
    return 0


def _as_json(step: Step) -> dict[str, Any]:
    return {
        "time": step.time.isoformat(),
        "host": step.host,
        "service": step.service,
        "what": step.what,
        "line": step.line,
    }


def _title(attempt: dict[str, Any]) -> str:
    mapped = "" if attempt["map_index"] < 0 else f"[{attempt['map_index']}]"
    return (
        f"{attempt['id']}  {attempt['dag_id']} {attempt['task_id']}{mapped} {attempt['run_id']}, "
        f"try {attempt['try_number']}: {attempt['state']}"
    )


if __name__ == "__main__":
    sys.exit(main())
