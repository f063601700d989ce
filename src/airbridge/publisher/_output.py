"""How results reach a person, a program, and a CI: tables, JSON, annotations, progress."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from airbridge.publisher._findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Format", "print_findings", "print_json", "print_table", "progress", "say", "size", "warn"]

_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTICE: "cyan"}
_KIB: Final = 1024
_NARROW: Final = 100  # columns that tables get where there is no terminal to ask


class Format(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"
    GITHUB = "github"


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Wide, rather than cut, where a program or a log reads it.
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _NARROW * 2)


def print_json(document: object) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=True))


def say(text: str) -> None:
    """Print a line of the result."""
    _console().print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a line that is no result."""
    _console(stderr=True).print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str = "") -> None:
    """Print a table."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    _console().print(table)


def print_findings(findings: Iterable[Finding], form: Format, *, summary: dict[str, Any]) -> None:
    """Print what was found; ``summary`` goes into the JSON document beside it."""
    findings = list(findings)
    if form is Format.JSON:
        print_json({**summary, "findings": [found.to_json() for found in findings]})
        return
    if form is Format.GITHUB:
        for found in findings:
            print(_annotation(found))
        return
    console = _console()
    for found in findings:
        place = f"{found.file}:{found.line}" if found.line else found.file or "release"
        colour = _COLOURS[found.severity]
        console.print(f"{escape(place)}  [{colour}]{found.code}[/]  {escape(found.message)}", soft_wrap=True)
        console.print(f"    [dim]{escape(found.hint)}[/]", soft_wrap=True)


def _annotation(found: Finding) -> str:
    """Return a workflow command of GitHub Actions."""
    where = {"file": found.file, "line": str(found.line) if found.line else "", "title": found.code}
    properties = ",".join(
        f"{name}={_data(value).replace(':', '%3A').replace(',', '%2C')}"
        for name, value in where.items()
        if value
    )
    return f"::{found.severity} {properties}::{_data(f'{found.message} ({found.hint})')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on standard error: a bar on a terminal, a line a stage elsewhere, nothing when quiet.

    Yields a function of stage, done and total (0: not counted).
    """
    if quiet:
        yield lambda _stage, _done, _total: None
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield show


class _Lines:
    """One plain line whenever the stage changes, and when it is done."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        finished = bool(total) and done == total
        if stage != self._last or finished:
            self._last = stage
            print(f"{stage} ({done}/{total})" if total else stage, file=sys.stderr, flush=True)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"
