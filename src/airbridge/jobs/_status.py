"""What the periodic sync leaves behind, and what its health check makes of it. Standard library only."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["DEFAULT_STATUS_FILE", "check_health", "note_success"]

DEFAULT_STATUS_FILE: Final = "/tmp/airbridge-job-sync.json"  # noqa: S108  (the container's own)

_MISSED_PASSES: Final = 3
_GRACE_SECONDS: Final = 60
"""How long a pass itself may take, over a slow line."""


def note_success(path: Path, interval: float, summary: dict[str, int]) -> None:
    """Note that a pass has just brought the bucket to what the packages say."""
    document = {"succeeded_at": time.time(), "interval": interval, "summary": summary}
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)


def check_health(environment: dict[str, str] | None = None) -> tuple[bool, str]:
    """Tell whether the last successful pass is recent, and a line for a person."""
    values = os.environ if environment is None else environment
    path = Path(values.get("JOB_SYNC_STATUS_FILE") or DEFAULT_STATUS_FILE)
    try:
        document = json.loads(path.read_text())
        age = time.time() - float(document["succeeded_at"])
        allowed = float(document["interval"]) * _MISSED_PASSES + _GRACE_SECONDS
        summary = ", ".join(f"{count} {name}" for name, count in document["summary"].items())
    except FileNotFoundError:
        return False, "no pass has succeeded yet | fix: read the log of job-sync"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return False, f"{path} cannot be read: {error} | fix: restart job-sync"
    if age > allowed:
        return False, f"the last pass that succeeded ended {age:.0f} s ago | fix: read the log of job-sync"
    return True, f"the last pass succeeded {max(age, 0):.0f} s ago: {summary}"
