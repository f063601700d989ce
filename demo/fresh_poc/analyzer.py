"""Analyzer: turns references into an order of work, and finds what is wrong with them."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from ._errors import ServiceError
from ._service import Request, Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Analyzer", "analyze"]


def analyze(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return nodes with their depth (0 = refers to nothing), edges, results, and dangling references.

    ServiceError 422 when models refer to each other in a circle.
    """
    known = {model["name"]: model for model in models}
    refs = {name: [ref for ref in model["refs"] if ref in known] for name, model in known.items()}
    try:
        order = list(TopologicalSorter(refs).static_order())
    except CycleError as error:
        raise ServiceError(
            422, f"models refer to each other in a circle: {' -> '.join(error.args[1])}"
        ) from None
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[ref] for ref in refs[name]), default=-1)
    used = {ref for targets in refs.values() for ref in targets}
    return {
        "nodes": [
            {"name": name, "depth": depth[name], "lines": known[name]["lines"]}
            for name in sorted(known, key=lambda name: (depth[name], name))
        ],
        "edges": [{"model": name, "refers_to": ref} for name in sorted(refs) for ref in refs[name]],
        "results": sorted(set(known) - used),
        "dangling": sorted({ref for model in models for ref in model["refs"] if ref not in known}),
    }


class Analyzer(Service):
    """Result: ``{"repo": ..., "nodes": [...], "edges": [...], "results": [...], "dangling": [...]}``."""

    name = "analyzer"
    action = "/run"

    def compute(self, request: Request) -> dict[str, Any]:
        """Analyse what the miner found in this run."""
        mined = self.from_peer("miner", request.run_id)
        return {"repo": mined["repo"], **analyze(mined["models"])}

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Number of models, of edges and of layers, and what the pipeline ends in."""
        return {
            "models": len(result["nodes"]),
            "edges": len(result["edges"]),
            "layers": 1 + max((node["depth"] for node in result["nodes"]), default=-1),
            "results": result["results"],
            "dangling": result["dangling"],
        }
