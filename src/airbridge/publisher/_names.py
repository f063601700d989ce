"""The rules of names that several commands share: DAG ids, and file names that are one package's own."""

from __future__ import annotations

import re
from typing import Final

from airbridge.manifest import SOURCE_FOLDER

__all__ = ["MAX_DAG_ID_CHARACTERS", "claimed_name", "follows_convention", "is_dag_id"]

MAX_DAG_ID_CHARACTERS: Final = 250
"""As long as Airflow's column is."""

_SOURCE: Final = f"dags/{SOURCE_FOLDER}/"

_DAG_ID = re.compile(r"[A-Za-z0-9_.-]+")


def is_dag_id(dag_id: str) -> bool:
    """Tell whether Airflow accepts the id."""
    return len(dag_id) <= MAX_DAG_ID_CHARACTERS and _DAG_ID.fullmatch(dag_id) is not None


def follows_convention(dag_id: str, package: str) -> bool:
    """Tell whether the id is ``<package>_<name>``."""
    return dag_id.startswith(f"{package}_") and len(dag_id) > len(package) + 1


def claimed_name(path: str) -> str | None:
    """Return the name that ``path`` takes for its package alone, in all packages; ``None``: it takes none.

    Python files only: Airflow reports errors, and people speak of DAG files, by these. ``__init__.py`` is in
    every Python package, and code that no parser sees is its package's own affair.
    """
    name = path.rpartition("/")[2]
    if path.startswith(_SOURCE):
        return None
    return name.casefold() if name.endswith(".py") and name != "__init__.py" else None
