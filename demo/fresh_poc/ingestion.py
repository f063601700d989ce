"""Ingestion: takes the SQL models of a repository and records them for the run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import ServiceError
from ._service import Request, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CATALOGUE", "DEFAULT_REPO", "Ingestion"]

DEFAULT_REPO = "https://github.com/dbt-labs/jaffle-shop-classic"
_ROOT = Path(__file__).parent / "catalogue"
#: Repository -> its files. An edge host reaches nothing but its control plane, so nothing is cloned: the
#: models come with the image (written for this demonstration, named after those of the repository).
CATALOGUE = {DEFAULT_REPO: _ROOT / "jaffle-shop-classic"}


class Ingestion(Service):
    """Result: ``{"repo": ..., "records": [{"path", "bytes", "sha256", "text"}, ...]}``."""

    name = "ingestion"
    action = "/trigger"

    def compute(self, request: Request) -> dict[str, Any]:
        """Read the repository's files; ServiceError 422 when the catalogue has no such repository."""
        repo = _repo(request)
        folder = CATALOGUE.get(repo)
        if folder is None:
            raise ServiceError(422, f"repository {repo} is not in the catalogue: {', '.join(CATALOGUE)}")
        return {"repo": repo, "records": [_record(path, folder) for path in sorted(folder.rglob("*.sql"))]}

    def check_repeat(self, request: Request, result: Mapping[str, Any]) -> None:
        """A run has one repository."""
        if _repo(request) != result["repo"]:
            raise ServiceError(
                409, f"run {request.run_id} has ingested {result['repo']}, not {_repo(request)}"
            )

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Repository, number of files and bytes."""
        records = result["records"]
        return {
            "repo": result["repo"],
            "records": len(records),
            "bytes": sum(record["bytes"] for record in records),
        }


def _repo(request: Request) -> str:
    return request.params.get("repo", DEFAULT_REPO).rstrip("/").removesuffix(".git")


def _record(path: Path, folder: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "path": path.relative_to(folder).as_posix(),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "text": content.decode(),
    }
