"""Names of packages, jobs and DAGs: what they may be, and what they become."""

from __future__ import annotations

import re
import sys
from typing import Final

from airbridge.manifest import MAX_PACKAGE_CHARACTERS, PACKAGE

__all__ = ["MAX_DAG_ID_CHARACTERS", "check_job_name", "check_package_name", "dag_id_of"]

MAX_DAG_ID_CHARACTERS: Final = 100
"""An edge task travels as one text of at most 2048 characters (``edge_job.command``), which holds the DAG id
three times and the id of the run twice. Airflow itself allows 250, which would not fit."""

_WORDS = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_STYLE = "words of a-z and 0-9 joined by one '_', beginning with a letter"

# The package's folder comes first on a task's import path: these names would hide what the task itself needs.
_TAKEN = frozenset(sys.stdlib_module_names) | {"airbridge", "airflow"}


def check_package_name(name: str) -> str:
    """Return what is wrong with the name of a package; nothing when it is right."""
    if not PACKAGE.fullmatch(name) or len(name) > MAX_PACKAGE_CHARACTERS:
        return f"must be {_STYLE}, at most {MAX_PACKAGE_CHARACTERS} characters"
    if name in _TAKEN:
        return f"would hide the Python module '{name}' from its own jobs"
    return ""


def check_job_name(package: str, name: str) -> str:
    """Return what is wrong with the name of a job of ``package``; nothing when it is right."""
    if not _WORDS.fullmatch(name):
        return f"must be {_STYLE}"
    if len(dag_id_of(package, name)) > MAX_DAG_ID_CHARACTERS:
        return f"makes a DAG id of more than {MAX_DAG_ID_CHARACTERS} characters"
    return ""


def dag_id_of(package: str, job: str) -> str:
    """Return the id of a job's DAG."""
    return f"{package}_{job}"
