"""What ``validate`` can find: a code for each kind of fault, and where one was found.

Codes are stable: 1xx files, 2xx DAGs, 3xx imports, 4xx work while a file is parsed, 5xx the real import.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from airbridge.manifest import MAX_FILE_BYTES, MAX_FILES

__all__ = [
    "MAX_RELEASE_BYTES",
    "MAX_SOURCE_BYTES",
    "RULES",
    "Finding",
    "Rule",
    "Severity",
    "blocking",
    "finding",
    "ordered",
]

MAX_SOURCE_BYTES: Final = 1024 * 1024
"""Size of one Python file at most: the DAG processor reads every one again and again."""

MAX_RELEASE_BYTES: Final = 64 * 1024 * 1024
"""Size of a release at most: every host fetches all of it."""


class Severity(StrEnum):
    """``error`` stops a publish, ``warning`` and ``notice`` do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of fault; ``waivable`` ones can be taken off with ``--ignore``."""

    code: str
    title: str
    hint: str
    severity: Severity = Severity.ERROR
    waivable: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault; ``line`` is 0 when it is about the file, ``file`` is empty when about the release."""

    code: str
    severity: Severity
    file: str
    line: int
    message: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


_MIB: Final = 1024 * 1024

RULES: Final[dict[str, Rule]] = {
    rule.code: rule
    for rule in (
        Rule("ABP101", "a name that cannot be stored", "rename it: printable characters, no \\ and no .."),
        Rule("ABP102", "no regular file", "put a copy of the file there instead of a link or a device"),
        Rule("ABP103", "a hidden file or a leftover", "remove it from the folder of the DAGs"),
        Rule("ABP104", "names that differ in case only", "rename one of them"),
        Rule(
            "ABP105",
            "a file that is too large",
            f"keep data elsewhere: a Python file has at most {MAX_SOURCE_BYTES // _MIB} MiB, another one "
            f"{MAX_FILE_BYTES // _MIB} MiB",
        ),
        Rule("ABP106", "too many files", f"split the package: a release has at most {MAX_FILES} files"),
        Rule("ABP107", "an empty release", "name the folder of the DAGs with --dag-path"),
        Rule("ABP108", "a file name of another package", "give the file a name that starts with the package"),
        Rule(
            "ABP109",
            "a release that is too large",
            f"keep data elsewhere: a release has at most {MAX_RELEASE_BYTES // _MIB} MiB",
        ),
        Rule("ABP110", "a file that cannot be read", "make it readable for you"),
        Rule("ABP201", "not UTF-8", "save the file as UTF-8"),
        Rule("ABP202", "a syntax error", "correct the line; the control plane runs Python 3.11"),
        Rule("ABP203", "a DAG id outside of the convention", "call it <package>_<name>"),
        Rule("ABP204", "a DAG id twice in the release", "give each DAG an id of its own"),
        Rule("ABP205", "a DAG id of another package", "choose another id, or remove it there first"),
        Rule(
            "ABP206",
            "a DAG id that only running the file tells",
            "write the id as a literal, or let --import-check find it",
            Severity.WARNING,
        ),
        Rule("ABP207", "a DAG id that Airflow refuses", "use letters, digits, _, - and ., at most 250"),
        Rule("ABP208", "no DAG in the release", "check that this is the right folder", Severity.WARNING),
        Rule(
            "ABP209",
            "a DAG that Airflow does not see",
            "keep the DAG in a name of the module (with, =), and call a function under @dag",
            Severity.WARNING,
        ),
        Rule("ABP301", "a relative import", "import inside the task", waivable=True),
        Rule("ABP302", "package code imported by the parser", "import inside the task", waivable=True),
        Rule("ABP303", "a module beside the file", "import inside the task", waivable=True),
        Rule(
            "ABP304",
            "an import that the control plane may not have",
            "import inside the task, or allow the module with --allow-import",
            waivable=True,
        ),
        Rule(
            "ABP305",
            "an import by a computed name",
            "import inside the task",
            Severity.WARNING,
            waivable=True,
        ),
        Rule("ABP401", "files used while parsing", "open files inside the task", waivable=True),
        Rule("ABP402", "the network used while parsing", "call services inside the task", waivable=True),
        Rule("ABP403", "a program started while parsing", "start programs inside the task", waivable=True),
        Rule(
            "ABP404",
            "Airflow's database asked while parsing",
            "ask inside the task, or in a template: {{ var.value.name }}",
            waivable=True,
        ),
        Rule("ABP405", "waiting while parsing", "use a sensor, or wait inside the task", waivable=True),
        Rule(
            "ABP406",
            "code made while parsing",
            "write the code down",
            Severity.WARNING,
            waivable=True,
        ),
        Rule("ABP501", "an import error", "the control plane would show the same: correct the line"),
        Rule("ABP502", "an import that did not end", "do less at the top of the file"),
        Rule(
            "ABP503",
            "not imported for real",
            "build or load the control-plane image (make build-control-plane), or --import-check never",
            Severity.NOTICE,
        ),
    )
}


def finding(code: str, message: str, *, file: str = "", line: int = 0) -> Finding:
    """Return a finding of the rule ``code``."""
    rule = RULES[code]
    return Finding(code, rule.severity, file, line, message, rule.hint)


def blocking(findings: list[Finding]) -> list[Finding]:
    """Return those that stop a publish."""
    return [found for found in findings if found.severity is Severity.ERROR]


def ordered(findings: list[Finding]) -> list[Finding]:
    """Return each finding once, by file, line and code."""
    return sorted(set(findings), key=lambda found: (found.file, found.line, found.code, found.message))
