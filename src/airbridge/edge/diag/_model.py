"""What a check is, what it finds, and how a list of them runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airbridge.edge._control_plane import Versions
    from airbridge.edge.settings import EdgeSettings

__all__ = ["Check", "Context", "Failed", "Finding", "Limits", "NotRun", "Outcome", "run_checks"]


class Outcome(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is too bad to pass."""

    min_certificate_days: float = 7.0
    """Days that the certificate must still be valid: time enough to notice and to act."""
    max_clock_skew_s: float = 20.0
    """Seconds between the clocks; request tokens live for 30."""
    timeout_s: float = 10.0
    """Seconds for one network step."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every check may look at."""

    settings: EdgeSettings
    versions: Versions
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    outcome: Outcome
    value: str
    """What was measured, or what is wrong."""
    fix: str = ""
    """What to do; empty when the check passed."""


class Failed(Exception):
    """A check did not pass."""

    def __init__(self, value: str, fix: str) -> None:
        super().__init__(value)
        self.value = value
        self.fix = fix


class NotRun(Exception):
    """A check found that another one has to pass first."""

    def __init__(self, needs: str) -> None:
        super().__init__(needs)
        self.needs = needs


@dataclass(frozen=True, slots=True)
class Check:
    """One question."""

    name: str
    run: Callable[[Context], str]
    """Returns the value to show, or raises :class:`Failed` or :class:`NotRun`."""
    needs: tuple[str, ...] = ()
    """Names of checks that must have passed."""


def _not_run(check: Check, needs: str) -> Finding:
    return Finding(check.name, Outcome.NOT_RUN, f"not run: needs {needs}", f"make {needs} pass first")


def _run(check: Check, context: Context) -> Finding:
    try:
        return Finding(check.name, Outcome.PASS, check.run(context))
    except Failed as failure:
        return Finding(check.name, Outcome.FAIL, failure.value, failure.fix)
    except NotRun as reason:
        return _not_run(check, reason.needs)
    except Exception as error:
        # A diagnosis that dies of what it meets is none. The type alone: texts of unknown errors may
        # quote what they were given, and that includes the token.
        return Finding(check.name, Outcome.FAIL, f"unexpected {type(error).__name__}", "report it as a bug")


def run_checks(checks: Sequence[Check], context: Context, passed: Sequence[str] = ()) -> list[Finding]:
    """Run ``checks`` in order and return one finding each.

    :param passed: names of checks that passed before
    """
    done, findings = set(passed), []
    for check in checks:
        missing = next((name for name in check.needs if name not in done), None)
        finding = _not_run(check, missing) if missing else _run(check, context)
        if finding.outcome is Outcome.PASS:
            done.add(check.name)
        findings.append(finding)
    return findings
