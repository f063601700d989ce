"""Memory and CPU of every container while nothing runs.

Memory is what ``docker stats`` shows: the control group's usage without the inactive part of the page
cache, which the kernel takes back whenever somebody needs it. CPU is the group's own clock at the end less
the one at the start, in percent of one core.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from airbridge.errors import SettingsError, UnreachableError
from bench._progress import say
from bench._shell import Shell

if TYPE_CHECKING:
    from bench._stack import Stack

__all__ = ["Sample", "engine_client", "look", "measure", "read_sample"]

_MIB = 1024 * 1024
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a container."""

    memory_mib: float
    cpu_s: float
    """CPU time since its start."""
    threads: int = 0


def read_sample(stats: dict[str, Any]) -> Sample:
    """Turn the engine's statistics of one container into a sample (control groups of version 1 and 2)."""
    memory = stats["memory_stats"]
    details = memory["stats"]
    # Version 1 counts the whole group under total_*; version 2 has no such name.
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Sample(
        (memory["usage"] - inactive) / _MIB,
        stats["cpu_stats"]["cpu_usage"]["total_usage"] / _NS_PER_S,
        int(stats.get("pids_stats", {}).get("current", 0)),
    )


def engine_client() -> httpx.Client:
    """Return a client of the engine's own API; ``docker stats`` rounds, and takes seconds for each look."""
    endpoint = os.environ.get("DOCKER_HOST") or Shell().run(
        "docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )
    scheme, _, path = endpoint.strip().partition("://")
    if scheme != "unix":
        raise SettingsError(
            f"DOCKER_HOST={endpoint}: no engine of this machine", fix="measure it where it runs"
        )
    return httpx.Client(base_url="http://docker", transport=httpx.HTTPTransport(uds=path), timeout=30)


def look(engine: httpx.Client, name: str, container: str) -> Sample:
    """Look at a container now.

    :raises UnreachableError: it has stopped
    """
    answer = engine.get(f"/containers/{container}/stats", params={"stream": "false", "one-shot": "true"})
    # A container that has stopped has empty statistics, and one that was removed has none.
    if answer.is_error or not answer.json()["memory_stats"]:
        raise UnreachableError(f"container {name} stopped while it was watched", fix="read its log")
    return read_sample(answer.json())


def _watch(containers: dict[str, str], seconds: int, every: float) -> dict[str, tuple[list[Sample], float]]:
    """Return name -> (samples, seconds between the first and the last)."""
    seen: dict[str, list[tuple[float, Sample]]] = {name: [] for name in containers}
    with engine_client() as engine:
        end = time.monotonic() + seconds
        while True:
            for name, container in containers.items():
                seen[name].append((time.monotonic(), look(engine, name, container)))
            if time.monotonic() >= end:
                break
            time.sleep(every)
    return {name: ([sample for _, sample in rows], rows[-1][0] - rows[0][0]) for name, rows in seen.items()}


def measure(
    stack: Stack, *, settle: int, seconds: int, every: float = 5.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (numbers, samples) of the control plane and of the edge host as shipped.

    :param settle: seconds of rest before the first look
    :param seconds: how long to watch
    :param every: seconds between two looks
    """
    groups = {"control_plane": stack.containers(), "edge_host": stack.containers(edge="shipped")}
    say(
        "idle",
        f"{settle} s of rest, then {seconds} s of watching {sum(map(len, groups.values()))} containers",
    )
    time.sleep(settle)
    watched = _watch(
        {f"{group}/{name}": identity for group, named in groups.items() for name, identity in named.items()},
        seconds,
        every,
    )
    numbers: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    for group, named in groups.items():
        services = {}
        for name in named:
            rows, elapsed = watched[f"{group}/{name}"]
            services[name] = {
                "memory_mib": round(statistics.median(row.memory_mib for row in rows), 1),
                "cpu_percent": round(100 * (rows[-1].cpu_s - rows[0].cpu_s) / elapsed, 2),
            }
        numbers[group] = {
            "memory_mib": round(sum(service["memory_mib"] for service in services.values()), 1),
            "cpu_percent": round(sum(service["cpu_percent"] for service in services.values()), 2),
            "services": services,
        }
        samples[group] = {
            name: [round(row.memory_mib, 1) for row in watched[f"{group}/{name}"][0]] for name in named
        }
        say(
            "idle",
            f"{group}: {numbers[group]['memory_mib']} MiB, {numbers[group]['cpu_percent']} % of a core",
        )
    return numbers, {"memory_mib": samples}
