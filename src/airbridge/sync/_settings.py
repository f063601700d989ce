"""Settings of dag-sync, all from the environment; the names are the promise, the defaults are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError
from airbridge.s3_names import BucketName, EndpointUrl, EnvironmentName  # noqa: TC001 - pydantic reads them

__all__ = ["Settings", "load_settings"]


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


class Settings(BaseSettings):
    """What dag-sync reads from its environment.

    AWS credentials are not here: they come the standard way (``AWS_ACCESS_KEY_ID`` and
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_SHARED_CREDENTIALS_FILE``, container or instance role).
    """

    model_config = SettingsConfigDict(env_ignore_empty=True)  # as compose passes a variable that is not set

    dag_bucket: BucketName
    """DAG bucket: the S3 bucket that holds the DAGs."""

    environment: EnvironmentName
    """First segment of every key; ``<environment>/<package>/dags/*.py`` is mirrored."""

    s3_endpoint_url: EndpointUrl = ""
    """S3 endpoint, addressed path-style; empty means AWS."""

    aws_default_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "us-east-1"
    """Region of the bucket."""

    dag_store: Annotated[Path, AfterValidator(_absolute)] = Path("/store")
    """Root of the DAG store."""

    dag_sync_poll_interval: Annotated[float, Field(ge=0.1, le=3600)] = 2.0
    """Seconds between cheap polls: one LIST per 1000 objects, and nothing more when nothing changed."""

    dag_sync_interval: Annotated[float, Field(ge=1, le=86400)] = 30.0
    """Seconds between full passes: the listing against what is published, and every local file re-read."""

    dag_sync_keep_trees: Annotated[int, Field(ge=1, le=10_000)] = 10
    """How many trees stay, the current one included, so that a DAG run in flight can finish on its own."""

    dag_sync_keep_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 3600
    """A tree that was used within so many seconds stays too, however many there are."""

    dag_sync_publish_trees: bool = False
    """Write a document of every tree into the bucket, so that others can fetch it (control plane only)."""

    health_port: Annotated[int, Field(ge=1, le=65535)] = 8081
    """Port of ``/healthz``, ``/metrics`` and ``/trees/<hash>``."""

    @property
    def poll_seconds(self) -> float:
        """Seconds between polls; never longer than a full pass is apart."""
        return min(self.dag_sync_poll_interval, self.dag_sync_interval)

    @property
    def prefix(self) -> str:
        """Key prefix that is mirrored, with its trailing slash."""
        return f"{self.environment}/"

    @property
    def source(self) -> str:
        """The mirrored prefix, for people."""
        where = f" at {self.s3_endpoint_url}" if self.s3_endpoint_url else ""
        return f"s3://{self.dag_bucket}/{self.prefix}{where}"


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises :class:`airbridge.errors.SettingsError` with one line that names every setting at fault.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the environment gives them
    except ValidationError as error:
        faults = [
            f"{str(fault['loc'][0]).upper()} is not set"
            if fault["type"] == "missing"
            else f"{str(fault['loc'][0]).upper()}={str(fault['input'])!r}: {_plain(fault['msg'])}"
            for fault in error.errors(include_url=False, include_context=False)
        ]
        raise SettingsError(
            "; ".join(faults), fix="correct dag-sync's environment and start it again"
        ) from None


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
