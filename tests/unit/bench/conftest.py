from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bench._results import Measurement, Target

if TYPE_CHECKING:
    from collections.abc import Callable

# Shapes and orders of magnitude of real results; no number here was measured.
_SUMMARY = {"count": 3, "min": 1.0, "median": 2.0, "p95": 2.9, "max": 3.0}
_PEERS = ("local", "airbridge", "airbridge-far")
_COST = {
    "control_plane_cpu_s": 0.2,
    "workers_cpu_s": 0.5,
    "queries": 80.0,
    "database_ms": 3.5,
    "rows_scanned": 900.0,
}
_LOOP = {"dispatch": 44.0, "task_instance": 40.0, "dag_run": 15.0, "edge_job": 4.0, "edge_worker": 1.0}
_COSTS = {"per_task": _COST, "scanned_per_loop": _LOOP, "idle_per_second": _COST}
_RATIOS = {"airbridge/local": 2.0}
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
    "dispatch": {
        **{
            name: dict.fromkeys(_PEERS, _SUMMARY)
            for name in ("queued_to_running_s", "tasks_per_minute", "seconds_per_hop")
        },
        **{
            f"{name}_ratios": _RATIOS for name in ("queued_to_running", "tasks_per_minute", "seconds_per_hop")
        },
        "costs": dict.fromkeys(_PEERS, _COSTS),
        "delay": {
            "means": "relay",
            "added_ms": 50,
            "round_trips": {key: {"first_ms": 9.0, "kept_ms": 1.0} for key in _PEERS[1:]},
        },
    },
    "visible": {"new_s": _SUMMARY, "changed_s": _SUMMARY},
    "idle": {"control_plane": _CONTAINERS, "edge_host": _CONTAINERS},
    "worked": {"control_plane": _CONTAINERS, "edge_host": _CONTAINERS},
}
_SAMPLES: dict[str, Any] = {
    "cold": {"seconds": {"cold": [1.0], "warm": [1.0], "cached": [1.0]}, "steps": {}},
    "dispatch": {
        "queued_to_running_s": {key: [1.0, 2.0, 3.0] for key in _PEERS},
        "ended_after_s": {key: [[0.5, 1.0], [0.6, 1.1]] for key in _PEERS},
        "chain_ended_after_s": {key: [[0.5, 1.0], [0.6, 1.1]] for key in _PEERS},
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
            "settings": {"rounds": 3, "slow_rounds": 2, "singles": 10, "mapped": 200, "chain": 20},
            "numbers": _NUMBERS[what],
            "samples": _SAMPLES[what],
            "targets": (Target(f"{what} target", 10, 2.9, "s"),),
        }
        return Measurement(**{**fields, **changes})

    return make
