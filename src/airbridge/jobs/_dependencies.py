"""Which jobs wait for which: unknown ones and circles are refused, and so is what waits for a refused one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["refused_dependencies", "resolve_reference"]


def resolve_reference(package: str, reference: str) -> str:
    """Return ``package.job`` for what a job of ``package`` wrote in ``depends_on``."""
    return reference if "." in reference else f"{package}.{reference}"


def refused_dependencies(
    graph: Mapping[str, tuple[str, ...]], broken: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Return what is wrong, and the fix, for each job that cannot have what it waits for.

    ``graph`` names, for each job, the jobs that it waits for; ``broken`` are jobs that are left out for
    another reason.
    """
    refused: dict[str, tuple[str, str]] = {}
    out = set(broken)
    for job, needed in graph.items():
        for other in needed:
            if other not in graph and other not in out:
                close = difflib.get_close_matches(other, [*graph, *out], n=1)
                hint = f"did you mean '{close[0]}'? " if close else ""
                refused[job] = (
                    f"depends_on names '{other}', which is no job",
                    f"{hint}name a job as 'package.job', or 'job' of the same package",
                )
                break
    for job in graph:
        circle = _circle(graph, job)
        if circle:
            refused.setdefault(
                job,
                (
                    f"depends_on leads in a circle: {' -> '.join(circle)}",
                    "take one of these dependencies away",
                ),
            )
    waiting = [job for job in graph if job not in refused]
    while True:
        missing = out | set(refused)
        follow = {
            job: next(other for other in graph[job] if other in missing)
            for job in waiting
            if job not in refused and not missing.isdisjoint(graph[job])
        }
        if not follow:
            return refused
        for job, other in follow.items():
            refused[job] = (f"depends_on names '{other}', which is left out", f"repair '{other}' first")


def _circle(graph: Mapping[str, tuple[str, ...]], start: str) -> list[str]:
    """Return the shortest way from ``start`` back to itself, both ends included, if there is one."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:  # grows while it is read: breadth first
        for other in graph.get(way[-1], ()):
            if other == start:
                return [*way, start]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []
