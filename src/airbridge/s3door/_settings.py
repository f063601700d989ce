"""Settings of the door, all from the environment."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError

__all__ = ["HEALTH_PORT", "Settings", "load_settings"]

HEALTH_PORT = 8081
"""Of ``/healthz`` and ``/metrics``; no setting, because the health check must know it too."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError("must be a bucket name")
    return value


def _environment(value: str) -> str:
    if not _ENVIRONMENT.fullmatch(value):
        raise ValueError("must be a-z, 0-9, '.' and '-'")
    return value


def _endpoint(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  (raises on a port that is none)
    except ValueError:
        raise ValueError("must be an address such as http://localstack:4566") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
        raise ValueError("must be empty (AWS) or an address such as http://localstack:4566")
    return value.rstrip("/")


class Settings(BaseSettings):
    """What the door reads from its environment; compose.yaml gives it."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    s3_upstream: Annotated[str, AfterValidator(_endpoint)] = ""
    """S3 behind the door, addressed path-style; empty means AWS."""
    gateway_client_certificates: Literal["off", "require"] = "off"
    """Whether an edge host's requests must come with its client certificate, which the gateway verifies."""
    aws_default_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "us-east-1"
    """Region of the buckets, and the only one that a signature may name."""
    dag_bucket: Annotated[str, AfterValidator(_bucket)]
    log_bucket: Annotated[str, AfterValidator(_bucket)]
    environment: Annotated[str, AfterValidator(_environment)]
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
