"""What discovery finds: jobs, and what stands in a job's way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airbridge.jobs._names import dag_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.jobs.options import JobOptions

__all__ = ["DiscoveredJob", "Discovery", "Package", "Problem"]


@dataclass(frozen=True, slots=True)
class DiscoveredJob:
    """A job that can be run, and everything that its DAG is made of."""

    package: str
    name: str
    module: str
    """What a worker imports: ``sales.jobs.load_orders``."""
    file: str
    """Below the packages' root, with slashes: ``sales/jobs/load_orders.py``."""
    line: int
    entrypoint: str
    description: str
    options: JobOptions

    @property
    def dag_id(self) -> str:
        """``<package>_<job>``."""
        return dag_id_of(self.package, self.name)

    @property
    def reference(self) -> str:
        """How another job names it in ``depends_on``: ``<package>.<job>``."""
        return f"{self.package}.{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``; of the options, those that were given."""
        return {
            "dag_id": self.dag_id,
            "package": self.package,
            "job": self.name,
            "module": self.module,
            "file": self.file,
            "line": self.line,
            "entrypoint": self.entrypoint,
            "description": self.description,
            "options": self.options.model_dump(mode="json", exclude_unset=True, by_alias=True),
        }


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Why a module, or a package, is left out."""

    file: str
    line: int
    """0: the whole file, or folder."""
    what: str
    fix: str
    package: str

    def __str__(self) -> str:
        """Return one line: where, what, fix."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.what} | fix: {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "package": self.package,
            "file": self.file,
            "line": self.line,
            "what": self.what,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Package:
    """A folder with a ``jobs/`` in it."""

    name: str
    root: Path
    """Its folder, resolved."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything that one look at the packages' root found, in the order of names."""

    root: Path
    packages: tuple[Package, ...]
    jobs: tuple[DiscoveredJob, ...]
    problems: tuple[Problem, ...]

    def jobs_of(self, package: str) -> tuple[DiscoveredJob, ...]:
        """Return the jobs of a package."""
        return tuple(job for job in self.jobs if job.package == package)

    def is_broken(self, package: str) -> bool:
        """Tell whether a package has problems and nothing else."""
        return not self.jobs_of(package) and any(problem.package == package for problem in self.problems)
