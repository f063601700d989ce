"""Reporting: renders what the writer stored as a Markdown report."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ._service import Answer, Request, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Reporting", "render"]


def render(graph: Mapping[str, Any]) -> str:
    """Return the report of a stored graph: a table of models by layer, and what each one is built on."""
    built_on: dict[str, list[str]] = {node["name"]: [] for node in graph["nodes"]}
    for edge in graph["edges"]:
        built_on[edge["model"]].append(edge["refers_to"])
    rows = [
        f"| {node['depth']} | {node['name']} | {node['lines']} | {', '.join(built_on[node['name']]) or '-'} |"
        for node in graph["nodes"]
    ]
    return "\n".join(
        [
            f"# Models of {graph['repo']}",
            "",
            f"{len(graph['nodes'])} models, {len(graph['edges'])} references.",
            "",
            "| layer | model | lines | built on |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


class Reporting(Service):
    """Result: ``{"repo": ..., "report": <Markdown>}``; ``/report`` gives the Markdown itself."""

    name = "reporting"
    action = "/generate"

    @property
    def paths(self) -> tuple[str, ...]:
        """The usual paths and the report."""
        return (*super().paths, "/report")

    def route(self, path: str, request: Request) -> Answer:
        """Answer ``/report`` with text, the rest as every service does."""
        if path == "/report":
            report: str = self.result(request.run_id)["report"]
            return Answer(200, report.encode(), "text/markdown; charset=utf-8")
        return super().route(path, request)

    def compute(self, request: Request) -> dict[str, Any]:
        """Render what the writer stored of this run."""
        graph = self.from_peer("writer", request.run_id)
        return {"repo": graph["repo"], "report": render(graph)}

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Size and checksum of the report."""
        content = result["report"].encode()
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
