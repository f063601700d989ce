from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bench._results import Measurement, Target

if TYPE_CHECKING:
    from collections.abc import Callable

# Shapes and orders of magnitude of real results; no number here was measured.
_SUMMARY = {"count": 3, "min": 1.0, "median": 2.0, "p95": 2.9, "max": 3.0}
_PEERS = ("edge", "local", "untuned")
_CONTAINERS = {
    "memory_mib": 30.5,
    "cpu_percent": 1.5,
    "services": {
        "one": {"memory_mib": 10.0, "cpu_percent": 0.5},
        "two": {"memory_mib": 20.5, "cpu_percent": 1.0},
    },
}
_NUMBERS: dict[str, Any] = {
    "cold": {f"{kind}_s": _SUMMARY for kind in ("cold", "warm", "cached")},
    "latency": {
        "queued_to_running_s": dict.fromkeys(_PEERS, _SUMMARY),
        "queued_to_running_ratios": {"edge/local": 2.0, "edge/untuned": 0.5},
        "tasks_per_minute": dict.fromkeys(_PEERS, _SUMMARY),
        "tasks_per_minute_ratios": {"edge/local": 0.4, "edge/untuned": 2.5},
    },
    "visible": {"new_s": _SUMMARY, "changed_s": _SUMMARY},
    "idle": {"control_plane": _CONTAINERS, "edge_host": _CONTAINERS},
    "worked": {"control_plane": _CONTAINERS, "edge_host": _CONTAINERS},
}
_SAMPLES: dict[str, Any] = {
    "cold": {"seconds": {"cold": [1.0], "warm": [1.0], "cached": [1.0]}, "steps": {}},
    "latency": {
        "queued_to_running_s": {key: [1.0, 2.0, 3.0] for key in _PEERS},
        "tasks_per_minute": {key: [1.0, 2.0, 3.0] for key in _PEERS},
        "ended_after_s": {key: [[0.5, 1.0], [0.6, 1.1]] for key in _PEERS},
    },
    "visible": {"seconds": {"new": [1.0, 2.0, 3.0], "changed": [3.0, 2.0, 1.0]}},
    "idle": {"memory_mib": {}},
    "worked": {"memory_mib": {}},
}


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    def make(what: str, **changes: Any) -> Measurement:
        fields: dict[str, Any] = {
            "what": what,
            "started": "2031-02-03T04:05:06+00:00",
            "command": f"python -m bench run {what}",
            "machine": {
                "cores": 2,
                "memory_gib": 7.8,
                "processor": "a processor",
                "kernel": "6.1",
                "engine": "26.1",
                "compose": "2.26",
                "load_average": [0.2, 0.1, 0.1],
            },
            "code": {"commit": "0123456789abcdef", "committed": "2031-02-03T00:00:00+00:00", "dirty": False},
            "quiet": True,
            "settings": {"rounds": 3},
            "numbers": _NUMBERS[what],
            "samples": _SAMPLES[what],
            "targets": (Target(f"{what} target", 10, 2.9, "s"),),
        }
        return Measurement(**{**fields, **changes})

    return make
