"""Miner: reads out of the SQL which model refers to which."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ._service import Request, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Miner", "mine"]

#: ``{{ ref('orders') }}``, as dbt writes it.
_REF = re.compile(r"\{\{-?\s*ref\(\s*(['\"])(?P<model>\w+)\1\s*\)\s*-?\}\}")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def mine(path: str, text: str) -> dict[str, Any]:
    """Return ``{"name", "path", "lines", "refs"}`` of one model; references in comments do not count."""
    code = _COMMENT.sub("", text)
    return {
        "name": PurePosixPath(path).stem,
        "path": path,
        "lines": sum(1 for line in code.splitlines() if line.strip()),
        "refs": sorted({match["model"] for match in _REF.finditer(code)}),
    }


class Miner(Service):
    """Result: ``{"repo": ..., "models": [{"name", "path", "lines", "refs"}, ...]}``."""

    name = "miner"
    action = "/run"

    def compute(self, request: Request) -> dict[str, Any]:
        """Mine every record of the run's ingestion."""
        ingested = self.from_peer("ingestion", request.run_id)
        models = [mine(record["path"], record["text"]) for record in ingested["records"]]
        return {"repo": ingested["repo"], "models": sorted(models, key=lambda model: model["name"])}

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Number of models and of references between them."""
        models = result["models"]
        return {"models": len(models), "references": sum(len(model["refs"]) for model in models)}
