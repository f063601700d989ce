"""What an operator may set for the control plane, checked before anything is made or changed.

Airflow's services find a malformed number only when they first use it, one after the other, with a traceback
and for ever; here every problem is named at once, by the name that ``.env`` knows it under.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from airbridge.errors import SettingsError
from airbridge.identity.authority import LIFETIME_SETTING, lifetime

__all__ = ["CollectorSettings", "check_settings", "load_collector_settings"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# As strict as the gateway, which matches request paths with it.
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_Kind = TypeVar("_Kind", bound=BaseSettings)
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def _pattern(pattern: re.Pattern[str]) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"does not match {pattern.pattern}")
        return value

    return AfterValidator(check)


def _endpoint(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises on a port that is none
    except ValueError:
        raise ValueError("is no address such as http://localstack:4566") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("must be empty (AWS) or an address such as http://localstack:4566")
    return value


def _without_slash(value: str) -> str:
    return value.rstrip("/")


def _lifetime(value: str) -> str:
    try:
        lifetime({LIFETIME_SETTING: value})
    except SettingsError as error:
        raise ValueError(f"is no lifetime: {error.fix}") from None
    return value


def _connection(value: str) -> str:
    try:
        json.loads(value)
    except ValueError:
        # The value holds a secret, and compose.yaml puts it between double quotes.
        raise ValueError('must hold neither " nor \\') from None
    return value


class _Settings(BaseSettings):
    """The environment of ``init``, where it can be malformed. Compose fills in the defaults."""

    # Empty counts as not set, as in compose.yaml.
    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    dag_bucket: Annotated[str, _pattern(_BUCKET)]
    log_bucket: Annotated[str, _pattern(_BUCKET)]
    environment: Annotated[str, _pattern(_ENVIRONMENT)] = "dev"
    s3_endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = None
    aws_default_region: Annotated[str, _pattern(_REGION)] = "us-east-1"
    airbridge_admin_user: Annotated[str, _pattern(_USER)] = "admin"
    gateway_client_certificates: Literal["off", "require"] = "off"
    airbridge_client_certificate_lifetime: Annotated[str, AfterValidator(_lifetime)] = "30d"
    edge_limit_rate: int = Field(1, ge=1, le=1_000_000)
    edge_limit_burst: int = Field(1, ge=1, le=1_000_000)
    edge_limit_concurrent: int = Field(1, ge=1, le=1_000_000)
    edge_limit_waiting: int = Field(1, ge=1, le=1_000_000)
    edge_limit_failures: int = Field(1, ge=1, le=1_000_000)
    edge_limit_joins: int = Field(1, ge=1, le=1_000_000)
    connection: Annotated[str, AfterValidator(_connection)] = Field(
        "{}", validation_alias="AIRFLOW_CONN_AIRBRIDGE_S3"
    )
    parallelism: int = Field(1, ge=1, validation_alias="AIRFLOW__CORE__PARALLELISM")
    parsing_processes: int = Field(1, ge=1, validation_alias="AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES")
    min_file_process_interval: int = Field(
        0, ge=0, validation_alias="AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"
    )
    max_tis_per_query: int = Field(0, ge=0, validation_alias="AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY")
    max_dagruns: int = Field(1, ge=1, validation_alias="AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP")
    idle_sleep: float = Field(0, ge=0, validation_alias="AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME")


class CollectorSettings(BaseSettings):
    """The environment of the service ``collector``."""

    model_config = _Settings.model_config

    dag_bucket: Annotated[str, _pattern(_BUCKET)]
    environment: Annotated[str, _pattern(_ENVIRONMENT)] = "dev"
    s3_endpoint_url: Annotated[str, AfterValidator(_endpoint), AfterValidator(_without_slash)] = ""
    aws_default_region: Annotated[str, _pattern(_REGION)] = "us-east-1"
    airbridge_collect_interval: float = Field(10, ge=1, le=600)
    """Seconds between rounds."""
    airbridge_keep_tree_documents_days: int = Field(30, ge=1, le=3650)
    """Days that the document of a tree stays after it was written, however little anyone needs it."""

    @property
    def prefix(self) -> str:
        """Key prefix of the environment."""
        return f"{self.environment}/"

    @property
    def source(self) -> str:
        """The same, for people."""
        return f"s3://{self.dag_bucket}/{self.prefix}"


# What compose.yaml makes of these under Airflow's names, by the name in .env.
_OPERATORS_NAMES = {
    "AIRFLOW_CONN_AIRBRIDGE_S3": "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY",
    "AIRFLOW__CORE__PARALLELISM": "AIRFLOW_PARALLELISM",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "AIRFLOW_PARSING_PROCESSES",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "AIRFLOW_MIN_FILE_PROCESS_INTERVAL",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "AIRFLOW_MAX_TIS_PER_QUERY",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "AIRFLOW_MAX_DAGRUNS_TO_CREATE_PER_LOOP",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "AIRFLOW_SCHEDULER_IDLE_SLEEP_TIME",
}


def check_settings() -> None:
    """Look at the environment of this process.

    Raises:
        SettingsError: one or more settings are malformed; each is named, no secret is repeated.
    """
    _load(_Settings)


def load_collector_settings() -> CollectorSettings:
    """Read the settings of the collector.

    Raises:
        SettingsError: one or more settings are malformed; each is named.
    """
    return _load(CollectorSettings)


def _load(kind: type[_Kind]) -> _Kind:
    try:
        return kind()
    except ValidationError as error:
        problems = [_problem(record) for record in error.errors(include_url=False)]
        raise SettingsError(
            "; ".join(problems), fix="correct them in .env or the environment, then start again"
        ) from None


def _problem(record: Any) -> str:
    """Turn one of pydantic's error records into words for a person."""
    variable = str(record["loc"][0]).upper()
    name = _OPERATORS_NAMES.get(variable, variable)
    if record["type"] == "missing":
        return f"{name} is not set"
    if record["type"] == "value_error":
        said = str(record["ctx"]["error"])
    else:
        said = str(record["msg"]).replace("Input should be", "must be")
    shown = "" if variable == "AIRFLOW_CONN_AIRBRIDGE_S3" else f"={record['input']!r}"
    return f"{name}{shown} {said}"
