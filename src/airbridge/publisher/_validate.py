"""Validate a release: by reading it, and, where that can be done, by importing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airbridge.publisher._findings import RULES, Finding, blocking, ordered
from airbridge.publisher._import_check import ImportCheck, import_release
from airbridge.publisher._static import judge

if TYPE_CHECKING:
    from collections.abc import Collection

    from airbridge.publisher._catalog import Claims
    from airbridge.publisher._files import Snapshot

__all__ = ["Checks", "Validation", "validate"]


@dataclass(frozen=True, slots=True)
class Checks:
    """How a release is looked at."""

    image: str
    import_check: ImportCheck = ImportCheck.AUTO
    allow_imports: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    """Codes that are not looked for; of rules that may be waived."""
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class Validation:
    """DAG ids of a release, as far as they are known, and what is wrong with it."""

    dags: tuple[str, ...]
    findings: tuple[Finding, ...]
    imported: bool

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a publish."""
        return blocking(list(self.findings))


def validate(
    snapshot: Snapshot,
    package: str,
    checks: Checks,
    *,
    others: Claims | None = None,
    whole_release: bool = True,
) -> Validation:
    """Judge ``snapshot`` as a release of ``package``; ``others`` is what the rest of the bucket holds."""
    read = judge(
        snapshot, package, others=others, allow_imports=checks.allow_imports, whole_release=whole_release
    )
    findings = _without(read.findings, checks)
    dags = set(read.dags)
    imported = False
    # What reading refused is not run: neither a file that is not there nor one that is not Python.
    if not blocking(findings):
        real = import_release(snapshot, package, image=checks.image, mode=checks.import_check, others=others)
        imported = real.complete
        if real.complete:
            dags = set(real.dags)
            # Now it is known what reading could not tell.
            decided = {"ABP206"} | ({"ABP208"} if dags else set())
            findings = [found for found in findings if found.code not in decided]
        seen = {(found.code, found.message) for found in findings}
        findings += [
            found for found in _without(real.findings, checks) if (found.code, found.message) not in seen
        ]
    return Validation(tuple(sorted(dags)), tuple(ordered(findings)), imported)


def _without(findings: list[Finding], checks: Checks) -> list[Finding]:
    waived: Collection[str] = {code for code in checks.ignore if RULES[code].waivable}
    if checks.allow_empty:
        waived = {*waived, "ABP107", "ABP208"}
    return [found for found in findings if found.code not in waived]
