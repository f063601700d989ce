"""One plain line a step, in the form of the other steps of the project."""

from __future__ import annotations

import os
import time

__all__ = ["say"]

_STARTED = float(os.environ.get("AIRBRIDGE_STARTED", time.time()))


def say(step: str, text: str) -> None:
    """Print a line with the seconds since ``make`` started."""
    print(f"[{int(time.time() - _STARTED):4d} s] {step:<13} {text}", flush=True)
