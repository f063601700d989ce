"""Settings of the durable storage, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError

__all__ = ["StorageSettings", "load_settings"]


class StorageSettings(BaseSettings):
    """``AIRBRIDGE_S3_DATA_DIR``: the data directory, on a volume of its own.

    ``AIRBRIDGE_S3_RESERVE_MIB``: free space (MiB) at which bodies are refused, so that deletes still work.
    """

    model_config = SettingsConfigDict(env_prefix="AIRBRIDGE_S3_")

    data_dir: Path = Path("/var/lib/localstack/s3")
    reserve_mib: int = Field(default=32, ge=1, le=1024 * 1024)


def load_settings() -> StorageSettings:
    """Read the settings.

    :raises SettingsError: one is malformed; the message names it.
    """
    try:
        return StorageSettings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = "AIRBRIDGE_S3_" + "_".join(str(part) for part in problem["loc"]).upper()
        raise SettingsError(
            f"{name} is malformed: {problem['msg']} (got {problem['input']!r})",
            fix=f"correct or unset {name}",
        ) from error
