"""Folders of packages, written for one test."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airbridge.jobs.discovery import discover

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.jobs.discovery import DiscoveredJob, Discovery

__all__ = ["MAIN", "Packages"]

MAIN = "def main(argv): ...\n"


@dataclass(frozen=True)
class Packages:
    """A packages' root."""

    root: Path

    def put(self, path: str, text: str | bytes) -> Path:
        """Write a file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return file

    def job(self, name: str = "load", package: str = "sales", **options: object) -> Path:
        """Write a job with these options, as their ``repr`` says."""
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        text = f"from airbridge.jobs import Job\n{MAIN}JOB = Job(main, 'Load'{given})\n"
        return self.put(f"{package}/jobs/{name}.py", text)

    def discover(self) -> Discovery:
        """Read them."""
        return discover(self.root)

    def only_job(self) -> DiscoveredJob:
        """Return the one job that is there, with nothing wrong."""
        found = self.discover()
        assert [str(problem) for problem in found.problems] == []
        (job,) = found.jobs
        return job

    def problems(self) -> list[str]:
        """Return what is wrong, one line each."""
        return [str(problem) for problem in self.discover().problems]

    def only_problem(self) -> str:
        """Return the one thing that is wrong; there is no job."""
        found = self.discover()
        assert found.jobs == ()
        (problem,) = found.problems
        return str(problem)
