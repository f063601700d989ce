"""Print what was found and done: tables for a terminal, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from airbridge.jobs._releases import Outcome
from airbridge.jobs._schedules import (
    AssetSchedule,
    CronSchedule,
    EverySchedule,
    MomentSchedule,
    TimetableSchedule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airbridge.jobs._model import DiscoveredJob, Problem
    from airbridge.jobs._pass import PassResult

__all__ = ["print_jobs", "print_json", "print_pass", "print_problems", "schedule_text", "summary_of"]


def _console(*, stderr: bool = False) -> Console:
    # Lines of a log or a pipe are never folded: tools read them.
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def schedule_text(job: DiscoveredJob) -> str:
    """Return when a job runs by itself, in a few words."""
    options = job.options
    match options.schedule:
        case CronSchedule(expressions=expressions):
            text = ", ".join(expressions)
            text += "" if options.timezone == "UTC" else f" {options.timezone}"
        case EverySchedule(every=every):
            text = f"every {every}"
        case MomentSchedule(preset=preset):
            text = preset
        case TimetableSchedule(timetable=path):
            text = path.rpartition(".")[2]
        case AssetSchedule(assets=assets, all_of=all_of):
            text = f"after {' and '.join(assets)}" if all_of else f"after any of {', '.join(assets)}"
        case _:
            text = "" if options.depends_on else "manual"
    after = f"after {', '.join(options.depends_on)}" if options.depends_on else ""
    return " and ".join(part for part in (after, text) if part)


def print_jobs(jobs: Iterable[DiscoveredJob]) -> None:
    """Print one line a job."""
    console = _console()
    listed = list(jobs)
    if not console.is_terminal:
        for job in listed:
            # Not through Rich, which makes blanks of tabs.
            print(job.dag_id, schedule_text(job), f"{job.file}:{job.line}", job.description, sep="\t")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("DAG", "runs", "declared in", "description"):
        table.add_column(column, overflow="fold")
    for job in listed:
        row = (job.dag_id, schedule_text(job), f"{job.file}:{job.line}", job.description)
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def print_problems(problems: Iterable[Problem]) -> None:
    """Print one line a problem, to stderr."""
    console = _console(stderr=True)
    for problem in problems:
        console.print(str(problem), markup=False, style="red" if console.is_terminal else "")


def print_pass(result: PassResult) -> None:
    """Print what a pass did."""
    console = _console()
    errors = _console(stderr=True)
    if result.folder is not None:
        for path in result.folder.written:
            console.print(f"written   {path}", markup=False)
        for path in result.folder.removed:
            console.print(f"removed   {path}", markup=False)
        for path, why in result.folder.kept:
            errors.print(f"left alone {path}: {why} | fix: move it away", markup=False)
    for outcome in result.releases:
        line = f"{outcome.outcome:<9} {outcome.package} {outcome.release}".rstrip()
        line += f": {outcome.why}" if outcome.why else ""
        target = errors if outcome.outcome in (Outcome.REFUSED, Outcome.KEPT) else console
        target.print(line, markup=False)
    console.print(", ".join(f"{count} {what}" for what, count in summary_of(result).items()), markup=False)


def summary_of(result: PassResult) -> dict[str, int]:
    """Return what there is to count."""
    counts = {"jobs": len(result.discovery.jobs), "problems": len(result.problems)}
    if result.folder is not None:
        counts["files written"] = len(result.folder.written)
        counts["files removed"] = len(result.folder.removed)
        counts["files left alone"] = len(result.folder.kept)
    outcomes = Counter(outcome.outcome for outcome in result.releases)
    for outcome in Outcome:
        if outcomes[outcome]:
            counts[f"packages {outcome}"] = outcomes[outcome]
    return counts
