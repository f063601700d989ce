"""Settings of ``airflow-control-plane``: environment variables, each with a flag that wins over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError
from airbridge.jobs._status import DEFAULT_STATUS_FILE
from airbridge.jobs.generation import Code

__all__ = ["Settings", "load_settings"]


class Settings(BaseSettings):
    """What is read from the environment; bucket and S3 endpoint are settings of the publisher."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    etl_packages_root: Path = Path("packages")
    """Folder of the packages: every ``<package>/jobs/`` in it is looked at."""

    airflow_dags_dir: Path | None = None
    """Folder that DAG files are written to."""

    job_sync_interval: Annotated[float, Field(ge=1, le=86400)] = 300.0
    """Seconds between the passes of ``sync --watch``."""

    job_code: Code = Code.RELEASE
    """Where workers find the jobs' code."""

    job_sync_status_file: Path = Path(DEFAULT_STATUS_FILE)
    """What ``sync --watch`` leaves for ``health``."""


def load_settings(**flags: Any) -> Settings:
    """Return the settings; ``flags`` that are not ``None`` win over the environment.

    Raises :class:`airbridge.errors.SettingsError` with one line that names every setting at fault.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = [
            f"{str(fault['loc'][0]).upper()}={str(fault['input'])!r}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_context=False)
        ]
        raise SettingsError("; ".join(faults), fix="correct the environment or the flag") from None
