"""Find the jobs below a folder of packages, without importing any of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airbridge.jobs._dependencies import refused_dependencies, resolve_reference
from airbridge.jobs._model import DiscoveredJob, Discovery, Package, Problem
from airbridge.jobs._module_reader import read_module
from airbridge.jobs._names import check_job_name
from airbridge.jobs._packages import JOBS, Module, find_packages, modules_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DiscoveredJob", "Discovery", "Package", "Problem", "discover"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    job: DiscoveredJob
    lines: dict[str, int]

    def problem(self, what: str, fix: str, option: str = "") -> Problem:
        line = self.lines.get(option, self.job.line)
        return Problem(self.job.file, line, what, fix, self.job.package)


def discover(root: Path) -> Discovery:
    """Read every package below ``root``.

    What is broken is among the problems of the result and harms nothing else. Raises
    :class:`airbridge.errors.SettingsError` when ``root`` cannot be read.
    """
    packages, problems = find_packages(root)
    candidates: list[_Candidate] = []
    broken: set[str] = set()
    for package in packages:
        for module in modules_of(package):
            if isinstance(module, Problem):
                problems.append(module)
                continue
            found = _candidate(package, module)
            if isinstance(found, _Candidate):
                candidates.append(found)
            elif found:
                problems += found
                broken.add(f"{package.name}.{'_'.join(module.parts)}")
    shared = _shared_ids(candidates)
    problems += [problem for _, problem in shared]
    broken |= {reference for reference, _ in shared}
    candidates = [one for one in candidates if one.job.reference not in broken]
    waiting = _refused_dependencies(candidates, broken)
    problems += waiting.values()
    jobs = sorted(
        (one.job for one in candidates if one.job.reference not in waiting),
        key=lambda job: (job.package, job.name),
    )
    return Discovery(root, tuple(packages), tuple(jobs), tuple(sorted(problems)))


def _candidate(package: Package, module: Module) -> _Candidate | list[Problem] | None:
    read = read_module(module.body)
    if read is None:
        return None
    if isinstance(read, tuple):
        return [Problem(module.file, one.line, one.what, one.fix, package.name) for one in read]
    name = "_".join(module.parts)
    if any(part.startswith("__") for part in module.parts):
        wrong = "a job is declared in a module that Python itself gives a meaning"
        return [Problem(module.file, read.line, wrong, "give the job a module of its own", package.name)]
    if wrong := check_job_name(package.name, name):
        what = f"the job's name '{name}' {wrong}"
        return [Problem(module.file, read.line, what, "rename the module", package.name)]
    path = ".".join((package.name, JOBS, *module.parts))
    job = DiscoveredJob(
        package=package.name,
        name=name,
        module=path,
        file=module.file,
        line=read.line,
        entrypoint=read.entrypoint,
        description=read.description,
        options=read.options,
    )
    return _Candidate(job, read.lines)


def _shared_ids(candidates: list[_Candidate]) -> list[tuple[str, Problem]]:
    """Refuse every job whose DAG id another one has: none of them was first."""
    by_id: dict[str, list[_Candidate]] = defaultdict(list)
    for one in candidates:
        by_id[one.job.dag_id].append(one)
    refused: list[tuple[str, Problem]] = []
    for dag_id, group in by_id.items():
        for one in group if len(group) > 1 else ():
            others = ", ".join(other.job.file for other in group if other is not one)
            what = f"the DAG id '{dag_id}' is also that of {others}"
            refused.append((one.job.reference, one.problem(what, "rename one of them")))
    return refused


def _refused_dependencies(candidates: list[_Candidate], broken: set[str]) -> dict[str, Problem]:
    by_reference = {one.job.reference: one for one in candidates}
    graph = {
        reference: tuple(resolve_reference(one.job.package, other) for other in one.job.options.depends_on)
        for reference, one in by_reference.items()
    }
    return {
        reference: by_reference[reference].problem(what, fix, "depends_on")
        for reference, (what, fix) in refused_dependencies(graph, broken).items()
    }
