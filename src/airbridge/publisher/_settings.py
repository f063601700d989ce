"""Where the publisher publishes to, and how it asks the control plane.

Every field is an environment variable of the same name; a flag of the command line wins over it. The
defaults are those of the project's local stack.
"""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003  (pydantic reads the annotations)
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

import airbridge
from airbridge.errors import SettingsError
from airbridge.manifest import MAX_PACKAGE_CHARACTERS, PACKAGE

__all__ = ["Settings", "load_settings", "package_name"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_MAX_SECRET_BYTES: Final = 64 * 1024


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError("it is no name of an S3 bucket")
    return value


def _environment(value: str) -> str:
    if not _ENVIRONMENT.fullmatch(value):
        raise ValueError("it must be one word of letters, digits, - and _, such as dev")
    return value


def _url(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("it must be an address such as https://localhost:8443/s3")
    return value.rstrip("/")


class Settings(BaseSettings):
    """What the publisher reads from its environment.

    AWS credentials come the standard way (``AWS_ACCESS_KEY_ID``, a profile, a role); ``make publisher``
    writes an env file with all that is needed.
    """

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore")

    dag_bucket: Annotated[str, AfterValidator(_bucket)] = "airbridge-dags"
    """Bucket of the DAGs."""

    environment: Annotated[str, AfterValidator(_environment)] = "dev"
    """First segment of every key."""

    s3_endpoint_url: Annotated[str, AfterValidator(_url)] = Field(
        default="https://localhost:8443/s3",
        validation_alias=AliasChoices("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"),
    )
    """S3 endpoint: the gateway of a control plane; empty means AWS."""

    aws_default_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "us-east-1"
    """Region of the bucket."""

    airbridge_api_url: Annotated[str, AfterValidator(_url)] = "http://localhost:8080"
    """Web UI and REST API of the control plane, for ``status`` and ``--wait``."""

    airbridge_api_user: str = "admin"
    """User of the REST API; the role Viewer is enough."""

    airbridge_api_password: SecretStr = SecretStr("")
    """Password of the user."""

    airbridge_api_password_file: Path | None = None
    """File that holds the password; wins over the variable."""

    airbridge_api_token: SecretStr = SecretStr("")
    """A token of the REST API, instead of user and password."""

    airbridge_airflow_image: str = f"airbridge/airflow:{airbridge.__version__}"
    """Image of the control plane, in which DAG files are imported for real."""

    @property
    def prefix(self) -> str:
        """Key prefix of the environment, with its trailing slash."""
        return f"{self.environment}/"

    @property
    def where(self) -> str:
        """The environment's prefix, for people."""
        at = f" at {self.s3_endpoint_url}" if self.s3_endpoint_url else ""
        return f"s3://{self.dag_bucket}/{self.prefix}{at}"

    def password(self) -> str:
        """Return the password, from its file when there is one."""
        file = self.airbridge_api_password_file
        if file is None:
            return self.airbridge_api_password.get_secret_value()
        try:
            with file.open("rb") as source:
                return source.read(_MAX_SECRET_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(
                f"AIRBRIDGE_API_PASSWORD_FILE={file} cannot be read: {why}", fix="name a readable file"
            ) from None


def load_settings(**flags: Any) -> Settings:
    """Return the settings of the environment and of ``flags`` (``None``: not given).

    Raises :class:`airbridge.errors.SettingsError` with one line that names every setting at fault.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if (endpoint := given.pop("s3_endpoint_url", None)) is not None:
        given["S3_ENDPOINT_URL"] = endpoint  # by its alias, or the variable of that name would win
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            f"{str(fault['loc'][0]).upper()}={fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_context=False)
        ]
        raise SettingsError("; ".join(faults), fix="correct the flag or the environment variable") from None


def package_name(value: str | None) -> str:
    """Return ``value`` when it names a package; :class:`airbridge.errors.SettingsError` otherwise."""
    if not value:
        raise SettingsError("no package is named", fix="give --package-name, or set PACKAGE_NAME")
    if not PACKAGE.fullmatch(value) or len(value) > MAX_PACKAGE_CHARACTERS:
        raise SettingsError(
            f"--package-name {value!r} is no name of a package",
            fix=f"use words of a-z and 0-9 joined by _, at most {MAX_PACKAGE_CHARACTERS} characters",
        )
    return value
