"""Image build step: prints {version table: head revision} of every migration chain in the image, as JSON.

A service compares it with the database in milliseconds, where ``airflow db check-migrations`` takes seconds.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

CHAINS = {
    "alembic_version": "airflow",
    "alembic_version_fab": "airflow.providers.fab",
    "alembic_version_edge3": "airflow.providers.edge3",
}


def head(package: str) -> str:
    """Return the newest revision of the migrations in ``package``; exits when there are none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"migration_heads: {package} is not installed")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.submodule_search_locations[0]) / "migrations"))
    revision = ScriptDirectory.from_config(config).get_current_head()
    if revision is None:
        raise SystemExit(f"migration_heads: {package} has no migrations")
    return revision


print(json.dumps({table: head(package) for table, package in CHAINS.items()}))
