"""What was measured where: facts of the machine and of the code, as plain data."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from bench._progress import say
from bench._shell import Shell

__all__ = ["LOAD_LIMIT", "code_facts", "is_quiet", "machine_facts", "wait_for_quiet"]

LOAD_LIMIT = 1.0
"""Load average (1 minute) a core above which the machine is busy with something else."""

_KIB_PER_GIB = 1024 * 1024
_LOAD_PAUSE_S = 15


def _memory_gib(meminfo: str) -> float:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / _KIB_PER_GIB, 1)
    raise ValueError("no MemTotal in /proc/meminfo")


def _processor(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine_facts() -> dict[str, Any]:
    """Return cores, memory, kernel, engine and the load right now."""
    engine = Shell().run("docker", "version", "--format", "{{.Server.Version}}").strip()
    return {
        "cores": _cores(),
        "memory_gib": _memory_gib(Path("/proc/meminfo").read_text()),
        "processor": _processor(Path("/proc/cpuinfo").read_text()),
        "kernel": platform.release(),
        "engine": engine,
        "compose": Shell().run("docker", "compose", "version", "--short").strip(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def is_quiet(machine: dict[str, Any]) -> bool:
    """Return whether nothing else kept the machine busy when the measure started."""
    return bool(machine["load_average"][0] <= LOAD_LIMIT * machine["cores"])


def wait_for_quiet(patience_s: int) -> dict[str, Any]:
    """Return the machine's facts once it is quiet, or after so many seconds with a warning.

    The images may have been built a moment ago, and a load average remembers that for a minute or two.
    """
    deadline = time.monotonic() + patience_s
    while not is_quiet(machine := machine_facts()):
        where = f"load average {machine['load_average'][0]} on {machine['cores']} cores"
        if time.monotonic() >= deadline:
            say("WARNING", f"{where}: something else runs here, do not publish these numbers")
            break
        say("quiet", f"{where}: waiting for at most {deadline - time.monotonic():.0f} s more")
        time.sleep(_LOAD_PAUSE_S)
    return machine


def code_facts() -> dict[str, Any]:
    """Return commit, its date, and whether the working tree differs from it."""
    git = Shell()
    return {
        "commit": git.run("git", "rev-parse", "HEAD").strip(),
        "committed": git.run("git", "show", "--no-patch", "--format=%cI", "HEAD").strip(),
        # What is not tracked is not in the images' build context by accident either: it counts as well.
        "dirty": bool(git.run("git", "status", "--porcelain", "--", ":!bench/results").strip()),
    }
