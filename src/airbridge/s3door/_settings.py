"""Settings of the door, all from the environment."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError
from airbridge.s3_names import BucketName, EndpointUrl, EnvironmentName  # noqa: TC001 - pydantic reads them

__all__ = ["HEALTH_PORT", "Settings", "load_settings"]

HEALTH_PORT = 8081
"""Of ``/healthz`` and ``/metrics``; no setting, because the health check must know it too."""


def _without_path(value: str) -> str:
    if urlsplit(value).path:
        raise ValueError("must end after the host and port, such as http://localstack:4566")
    return value


class Settings(BaseSettings):
    """What the door reads from its environment; compose.yaml gives it."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    s3_upstream: Annotated[EndpointUrl, AfterValidator(_without_path)] = ""
    """S3 behind the door, addressed path-style; empty means AWS."""
    gateway_client_certificates: Literal["off", "require"] = "off"
    """Whether an edge host's requests must come with its client certificate, which the gateway verifies."""
    aws_default_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "us-east-1"
    """Region of the buckets, and the only one that a signature may name."""
    dag_bucket: BucketName
    log_bucket: BucketName
    environment: EnvironmentName
    database: SecretStr = Field(validation_alias="AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    """Postgres URI of the metadata database."""
    fernet_key: SecretStr = Field(validation_alias="AIRFLOW__CORE__FERNET_KEY")
    """Key, or keys, that the principals' secrets are encrypted with."""
    s3_door_rate: float = Field(200, gt=0, le=100_000)
    """Requests a second that one principal may send for as long as it likes."""
    s3_door_in_flight: int = Field(32, ge=1, le=4096)
    """Requests that one principal may have under way."""
    s3_door_max_body_mib: int = Field(256, ge=1, le=5120)
    """MiB that the body of a request may have."""
    s3_door_port: int = Field(9000, ge=1, le=65535)

    @property
    def upstream(self) -> str:
        """Address of S3, AWS's own where none is set."""
        region = self.aws_default_region
        suffix = ".cn" if region.startswith("cn-") else ""
        return self.s3_upstream or f"https://s3.{region}.amazonaws.com{suffix}"


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises :class:`airbridge.errors.SettingsError` with one line that names every setting at fault.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the environment gives them
    except ValidationError as error:
        faults = [
            f"{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise SettingsError("; ".join(faults), fix="correct them in .env, then make up") from None
