"""One pass: discover, generate, write, publish."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airbridge.jobs._dags_folder import FolderChanges, write_folder
from airbridge.jobs._model import Problem
from airbridge.jobs._packages import find_packages
from airbridge.jobs._release_files import build_package, fingerprint
from airbridge.jobs._releases import Outcome, PackageOutcome, publish_all
from airbridge.jobs.discovery import discover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airbridge.jobs._model import Discovery
    from airbridge.jobs._release_files import PackageFiles
    from airbridge.jobs._releases import ReleaseWriter
    from airbridge.jobs.generation import Code

__all__ = ["PassResult", "run_pass"]


@dataclass(slots=True)
class PassResult:
    """What a pass found and did."""

    discovery: Discovery
    problems: list[Problem]
    folder: FolderChanges | None = None
    releases: list[PackageOutcome] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether every job is where it should be."""
        refused = any(outcome.outcome is Outcome.REFUSED for outcome in self.releases)
        return not self.problems and not refused and not (self.folder and self.folder.kept)

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        document: dict[str, Any] = {
            "jobs": [job.to_json() for job in self.discovery.jobs],
            "problems": [problem.to_json() for problem in self.problems],
        }
        if self.folder is not None:
            document["folder"] = {
                "written": self.folder.written,
                "removed": self.folder.removed,
                "unchanged": self.folder.unchanged,
                "kept": [{"path": path, "why": why} for path, why in self.folder.kept],
            }
        document["releases"] = [
            {
                "package": outcome.package,
                "outcome": str(outcome.outcome),
                "release": outcome.release,
                "why": outcome.why,
            }
            for outcome in self.releases
        ]
        return document


def run_pass(
    root: Path,
    code: Code,
    *,
    dags_dir: Path | None = None,
    remove_stale: bool = True,
    writer: ReleaseWriter | None = None,
    progress: Callable[[str], None] = lambda _what: None,
) -> PassResult:
    """Bring a folder, a bucket, or both to what the packages below ``root`` say.

    A package with nothing but broken jobs stays as it is. Raises :class:`airbridge.errors.AirbridgeError`
    when the pass could not be made.
    """
    progress("reading the packages")
    before = {package.name: fingerprint(package) for package in find_packages(root)[0]}
    discovery = discover(root)
    problems = list(discovery.problems)
    built: list[PackageFiles] = []
    for package in discovery.packages:
        files = build_package(discovery, package, code)
        if before.get(package.name) != fingerprint(package):
            # Half of a checkout, perhaps: never a release.
            what, fix = "the package was changed while it was read", "nothing: the next pass takes it"
            problems.append(Problem(package.name, 0, what, fix, package.name))
        elif isinstance(files, Problem):
            problems.append(files)
        elif not (files.is_empty and discovery.is_broken(package.name)):
            built.append(files)
            problems += files.problems
    done = {files.package for files in built}
    kept = sorted({problem.package for problem in problems} - done)
    result = PassResult(discovery, sorted(problems))
    if dags_dir is not None:
        progress(f"writing {dags_dir}")
        result.folder = write_folder(dags_dir, built, keep=kept, remove_stale=remove_stale)
    if writer is not None:
        progress("publishing")
        result.releases = publish_all(writer, built, kept)
    return result
