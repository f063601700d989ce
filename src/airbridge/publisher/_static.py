"""The static half of ``validate``: judge a release by reading its files, and by what others hold."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airbridge.publisher._findings import Finding, finding
from airbridge.publisher._names import claimed_name, follows_convention, is_dag_id
from airbridge.publisher._source import DagId, Source, read_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airbridge.publisher._catalog import Claims
    from airbridge.publisher._files import LocalFile, Snapshot

__all__ = ["ALLOWED_IMPORTS", "Judgement", "judge", "judge_dag_id", "judge_dag_owner"]

ALLOWED_IMPORTS: Final = frozenset(
    {
        "airbridge",
        "airflow",
        "attr",
        "attrs",
        "dateutil",
        "docker",
        "kubernetes",
        "pendulum",
        "typing_extensions",
    }
)
"""Beside Python's own: what every parser has, and what DAG files need to describe tasks."""


@dataclass(slots=True)
class Judgement:
    """What reading found: DAG ids with the place of each, whether there may be more, and the faults."""

    dags: dict[str, tuple[LocalFile, int]] = field(default_factory=dict)
    dynamic: bool = False
    findings: list[Finding] = field(default_factory=list)


def judge(
    snapshot: Snapshot,
    package: str,
    *,
    others: Claims | None = None,
    allow_imports: Iterable[str] = (),
    whole_release: bool = True,
) -> Judgement:
    """Judge the files of a release of ``package``.

    Args:
        snapshot: the files.
        package: whose release it would be.
        others: what the other packages of the bucket hold; ``None``: nobody looked.
        allow_imports: modules that parsing may import beside :data:`ALLOWED_IMPORTS`.
        whole_release: whether the files are all of it, so that their number means something.
    """
    judgement = Judgement(findings=list(snapshot.findings))
    sources = [read_source(file) for file in snapshot.files if file.is_python]
    beside = _beside(snapshot.files)
    allowed = ALLOWED_IMPORTS | set(allow_imports)
    for source in sources:
        judgement.findings += source.findings
        judgement.findings += _judge_imports(source, package, beside, allowed)
        judgement.dynamic = judgement.dynamic or source.dynamic
        for dag in source.dags:
            _judge_dag(judgement, source.file, dag, package)
    judgement.findings += _judge_file_names(snapshot, others)
    if others is not None:
        for dag_id, (file, line) in judgement.dags.items():
            judgement.findings += judge_dag_owner(dag_id, others, file=file.shown, line=line)
    if whole_release and not judgement.findings:
        if not snapshot.files:
            judgement.findings.append(finding("ABP107", "there is no file to publish"))
        elif not judgement.dags:
            judgement.findings.append(finding("ABP208", "none of the files makes a DAG that can be seen"))
    return judgement


def judge_dag_id(dag_id: str, package: str, *, file: str, line: int) -> list[Finding]:
    """Judge the form of a DAG id."""
    if not is_dag_id(dag_id):
        shown = dag_id if len(dag_id) <= 64 else f"{dag_id[:64]}..."
        return [finding("ABP207", f"Airflow refuses the DAG id {shown!r}", file=file, line=line)]
    if not follows_convention(dag_id, package):
        message = f"the DAG id {dag_id!r} does not begin with '{package}_'"
        return [finding("ABP203", message, file=file, line=line)]
    return []


def judge_dag_owner(dag_id: str, others: Claims, *, file: str, line: int) -> list[Finding]:
    """Judge whether a DAG id is free."""
    owner = others.dags.get(dag_id)
    if owner is None:
        return []
    message = f"the DAG id {dag_id!r} belongs to the package {owner!r}"
    return [finding("ABP205", message, file=file, line=line)]


def _judge_dag(judgement: Judgement, file: LocalFile, dag: DagId, package: str) -> None:
    judgement.findings += judge_dag_id(dag.dag_id, package, file=file.shown, line=dag.line)
    first = judgement.dags.setdefault(dag.dag_id, (file, dag.line))
    if first != (file, dag.line):
        where = f"{first[0].shown}:{first[1]}"
        message = f"the DAG id {dag.dag_id!r} is in {where} already"
        judgement.findings.append(finding("ABP204", message, file=file.shown, line=dag.line))


def _judge_file_names(snapshot: Snapshot, others: Claims | None) -> list[Finding]:
    found = []
    for file in snapshot.files:
        name = claimed_name(file.path)
        owner = others.files.get(name) if others is not None and name is not None else None
        if owner is not None:
            message = f"a file of this name belongs to the package {owner!r}"
            found.append(finding("ABP108", message, file=file.shown))
    return found


def _beside(files: Iterable[LocalFile]) -> set[str]:
    """Return the modules that lie in the release, by the first part of their names."""
    names = set()
    for file in files:
        parts = file.path.split("/")[1:]
        if file.is_python:
            names.add(parts[0].removesuffix(".py"))
            names.add(parts[-1].removesuffix(".py"))
    return names - {"__init__"}


def _judge_imports(source: Source, package: str, beside: set[str], allowed: frozenset[str]) -> list[Finding]:
    found = []
    for module, level, line in source.imports:
        top = module.split(".")[0]
        if level:
            code, message = "ABP301", f"the relative import of {'.' * level}{module} runs in the parser"
        elif top == package:
            code, message = "ABP302", f"{module} is code of the package, which the parser must not run"
        elif top in sys.stdlib_module_names or _is_allowed(module, allowed):
            continue
        elif top in beside:
            code, message = "ABP303", f"{top} lies beside the file, where Airflow does not look for modules"
        else:
            code, message = "ABP304", f"{module} is neither Python's, Airflow's nor allowed"
        found.append(finding(code, message, file=source.file.shown, line=line))
    return found


def _is_allowed(module: str, allowed: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in allowed for length in range(1, len(parts) + 1))
