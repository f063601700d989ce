"""Runs all checks and prints what they found."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from airbridge.edge._control_plane import local_versions
from airbridge.edge.diag._api import API_CHECKS
from airbridge.edge.diag._courier import COURIER_CHECKS
from airbridge.edge.diag._model import Check, Context, Finding, Limits, Outcome, run_checks
from airbridge.edge.diag._network import NETWORK_CHECKS
from airbridge.edge.diag._storage import STORAGE_CHECKS
from airbridge.edge.settings import load_settings
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbridge.edge._control_plane import Versions

__all__ = ["ALL_CHECKS", "diagnose", "run_diag"]

ALL_CHECKS: Final[tuple[Check, ...]] = (*NETWORK_CHECKS, *API_CHECKS, *COURIER_CHECKS, *STORAGE_CHECKS)
"""In the order in which they run; ``settings`` comes before them all."""

_SETTINGS: Final = "settings"
_COLOURS: Final = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.NOT_RUN: "yellow"}


def diagnose(versions: Versions | None = None, limits: Limits | None = None) -> list[Finding]:
    """Run every check against the settings of the environment and return the findings in order.

    :param versions: what runs here; default: what is installed
    :param limits: default: :class:`Limits`
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        findings = []
        for line in str(error).splitlines():
            value, _, fix = line.partition(" | fix: ")
            findings.append(Finding(_SETTINGS, Outcome.FAIL, value, fix))
        rest = (_SETTINGS, Outcome.NOT_RUN, f"not run: needs {_SETTINGS}", f"make {_SETTINGS} pass first")
        return findings + [Finding(check.name, *rest[1:]) for check in ALL_CHECKS]
    value = f"worker {settings.worker_name}, queues {','.join(settings.worker_queues)}"
    context = Context(settings, versions or local_versions(), limits or Limits())
    return [
        Finding(_SETTINGS, Outcome.PASS, f"{value}, concurrency {settings.worker_concurrency}"),
        *run_checks(ALL_CHECKS, context, passed=(_SETTINGS,)),
    ]


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.outcome for finding in findings)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)


def _as_json(findings: Sequence[Finding]) -> str:
    return json.dumps(
        {
            "ok": all(finding.outcome is Outcome.PASS for finding in findings),
            "summary": _summary(findings),
            "checks": [asdict(finding) for finding in findings],
        },
        indent=2,
    )


def _print_table(findings: Sequence[Finding], console: Console) -> None:
    table = Table("", "check", "value", "fix", box=None, pad_edge=False)
    for finding in findings:
        mark = Text(finding.outcome.value.upper(), style=_COLOURS[finding.outcome])
        # Text, not markup: values come from the network and may hold brackets.
        table.add_row(mark, Text(finding.check), Text(finding.value), Text(finding.fix))
    console.print(table)
    console.print(_summary(findings))


def _print_lines(findings: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        fix = f" | fix: {finding.fix}" if finding.fix else ""
        print(f"{finding.outcome.value.upper():<7} {finding.check:<{width}} {finding.value}{fix}")
    print(_summary(findings))


def run_diag(*, as_json: bool) -> int:
    """Check, print, and return the exit code: 0 only when every check passed."""
    findings = diagnose()
    if as_json:
        print(_as_json(findings))
    elif sys.stdout.isatty():
        _print_table(findings, Console())
    else:
        _print_lines(findings)
    return 0 if all(finding.outcome is Outcome.PASS for finding in findings) else 1
