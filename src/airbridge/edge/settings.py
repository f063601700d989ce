"""The settings of an edge host, read from its environment.

All problems are reported at once, one line each, with the name of the setting, what is wrong with
its value, and the fix. The text of the token appears nowhere.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from airbridge.credential import WORKER_NAME, JoinToken
from airbridge.errors import SettingsError
from airbridge.token_source import STATE_DIR, TOKEN, NotJoinedError, read_credential

__all__ = ["HTTPS_PORT", "EdgeSettings", "load_settings"]

HTTPS_PORT: Final = 443

_NAME = re.compile(WORKER_NAME)
_QUEUE = re.compile(r"[A-Za-z0-9_.-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

# The edge provider stores str(list_of_queues) in a column of this many characters.
_QUEUES_COLUMN = 256

# Stands in for a secret that is not there (yet), so that the other settings are still checked.
_NO_SECRET = "x" * 32

_FIXES: Final = {
    "CONTROL_PLANE_URL": "set it to the edge endpoint, such as https://control.example.com:8443",
    "CONTROL_PLANE_CA_FILE": "set it to the PEM file of the endpoint's CA, or empty for the system's CAs",
    "WORKER_NAME": "set it to a name that no other worker has: a-z, 0-9 and hyphens, 63 at most",
    "WORKER_QUEUES": "set it to the queues this worker serves, separated by commas, such as default,gpu",
    "WORKER_CONCURRENCY": "set it to how many tasks may run at once: 1 to 256",
    "WORKER_RUNNER": "set it to airbridge (default) or stock",
    "ENVIRONMENT": "set it to the control plane's ENVIRONMENT, such as dev",
    "DAG_BUCKET": "set it to the control plane's DAG_BUCKET",
    "LOG_BUCKET": "set it to the control plane's LOG_BUCKET",
    "WORKER_DRAIN_TIMEOUT": "set it to the seconds that tasks get to finish at a stop: 0 (no limit) to 86400",
    "EDGE_HEARTBEAT_INTERVAL": "set it to the control plane's [edge] heartbeat_interval: 1 to 300 seconds",
    "EDGE_MIN_FREE_DISK_MB": "set it to the MiB below which no new task is taken: 0 to 1048576",
    "EDGE_ABSENCE_LIMIT": "set it to the control plane's EDGE_ABSENCE_LIMIT: 1 to 86400 seconds",
    "COURIER_URL": "leave it unset (http://courier:8080) unless the courier has another address",
    "UPLINK_URL": "leave it unset (http://uplink:8080) unless the uplink has another address",
    "S3_ENDPOINT_URL": "leave it unset (http://uplink:9000) unless the uplink has another address",
}


def _check_pattern(value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(f"{value!r} does not match {pattern.pattern}")
    return value


def _origin(value: str, schemes: tuple[str, ...]) -> str:
    """Return ``scheme://host[:port]`` or say what is wrong; never repeats a password."""
    value = value.strip().rstrip("/")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a valid address (host or port is malformed)") from None
    if parts.username or parts.password:
        raise ValueError("must hold no user name and no password")
    if parts.scheme not in schemes:
        raise ValueError(f"must start with {' or '.join(s + '://' for s in schemes)}, got {value!r}")
    if not parts.hostname or port == 0 or re.search(r"\s", value):
        raise ValueError(f"names no host and port, got {value!r}")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f"must end after the host and port, got {value!r}")
    return value


class EdgeSettings(BaseSettings):
    """Settings of one edge host. Field ``worker_name`` is the variable ``WORKER_NAME``, and so on."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    control_plane_url: str
    """``https://host[:port]`` of the gateway, without a trailing slash."""
    control_plane_token: SecretStr
    """The secret of this worker's credential; from the variable, from the file, or from joining."""
    control_plane_ca_file: Path | None = None
    """PEM file that verifies the gateway's certificate; None: the system's CAs."""
    worker_name: str
    worker_queues: Annotated[tuple[str, ...], NoDecode]
    """Never empty: the stock worker takes every queue's tasks when it is given none."""
    worker_concurrency: int = Field(default=8, ge=1, le=256)
    worker_runner: Literal["airbridge", "stock"] = "airbridge"
    """Which worker runs: the provider's own, which asks for jobs, or AirBridge's, which is told of them."""
    environment: str = "dev"
    dag_bucket: str = "airbridge-dags"
    log_bucket: str = "airbridge-logs"
    worker_drain_timeout: int = Field(default=300, ge=0, le=86_400)
    """Seconds that running tasks get to finish once the worker is told to stop; 0: no limit."""
    edge_heartbeat_interval: int = Field(default=10, ge=1, le=300)
    """Seconds between heartbeats; must equal the control plane's ``[edge] heartbeat_interval``."""
    edge_state_dir: Path = Path(STATE_DIR)
    """Lock, heartbeat mark, the credential of a host that joined; a volume, so that a restart remembers."""
    edge_min_free_disk_mb: int = Field(default=512, ge=0, le=1_048_576)
    """MiB of free disk below which the worker takes no new task and ``diag`` fails."""
    edge_absence_limit: int = Field(default=900, ge=1, le=86_400)
    """Seconds for which tasks go on while the control plane is away; it must be as patient as that."""
    dag_store: Path = Path("/store")
    """Root of the DAG store that dag-sync fills."""
    courier_url: str = "http://courier:8080"
    """Where the worker and its tasks report; the courier keeps what the control plane cannot take now."""
    uplink_url: str = "http://uplink:8080"
    s3_endpoint_url: str = "http://uplink:9000"
    aws_default_region: str = "us-east-1"
    join_token: JoinToken | None = None
    """What is still to be traded for a credential; until then the secret is good for nothing."""

    @field_validator("control_plane_url")
    @classmethod
    def _check_control_plane_url(cls, value: str) -> str:
        return _origin(value, ("https",))

    @field_validator("courier_url", "uplink_url", "s3_endpoint_url")
    @classmethod
    def _check_uplink_url(cls, value: str) -> str:
        return _origin(value, ("http", "https"))

    @field_validator("control_plane_ca_file")
    @classmethod
    def _check_ca_file(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.create_default_context(cafile=str(value))
        except ssl.SSLError:
            raise ValueError(f"the file {str(value)!r} holds no PEM certificate") from None
        except OSError as error:
            raise ValueError(f"cannot read the file {str(value)!r}: {error.strerror}") from None
        return value

    @field_validator("worker_name")
    @classmethod
    def _check_worker_name(cls, value: str) -> str:
        return _check_pattern(value, _NAME)

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _split_queues(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("worker_queues")
    @classmethod
    def _check_queues(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for queue in value:
            if not queue:
                raise ValueError("has an empty queue name between its commas")
            _check_pattern(queue, _QUEUE)
        queues = tuple(dict.fromkeys(value))
        if len(str(list(queues))) > _QUEUES_COLUMN:
            raise ValueError(
                f"is too long: Airflow keeps {_QUEUES_COLUMN} characters of queue names for a worker"
            )
        return queues

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, value: str) -> str:
        return _check_pattern(value, _ENVIRONMENT)

    @field_validator("dag_bucket", "log_bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        return _check_pattern(value, _BUCKET)

    @property
    def control_plane_host(self) -> str:
        """Host name or address of the control plane, without brackets."""
        return urlsplit(self.control_plane_url).hostname or ""

    @property
    def control_plane_port(self) -> int:
        """TCP port of the control plane's edge endpoint."""
        return urlsplit(self.control_plane_url).port or HTTPS_PORT

    @property
    def token(self) -> str:
        """The token's text. For signing and for the worker's own process, never for printing."""
        return self.control_plane_token.get_secret_value()

    @property
    def task_logs_url(self) -> str:
        """Where finished task logs go."""
        return f"s3://{self.log_bucket}/{self.environment}/task-logs"


def _problem(error: Any) -> str:
    """Turn one of pydantic's error records into one line for a person."""
    name = str(error["loc"][0]).upper() if error["loc"] else "settings"
    if error["type"] == "missing":
        text = "is not set"
    elif error["type"] == "value_error":
        text = str(error["ctx"]["error"])
    else:
        # "Input should be less than or equal to 256" and the like.
        text = str(error["msg"]).replace("Input should be", "must be")
        if given := os.environ.get(name):
            text += f", got {given!r}"
    return str(SettingsError(f"{name}: {text}", fix=_FIXES.get(name, "correct or unset it")))


def load_settings() -> EdgeSettings:
    """Read and check the settings.

    :raises SettingsError: with one line for each problem there is
    """
    problems: list[str] = []
    secret, join_token = _NO_SECRET, None
    try:
        secret = read_credential(os.environ).secret
    except NotJoinedError as error:
        join_token = error.token
    except SettingsError as error:
        problems.append(str(error))
    given: dict[str, Any] = {TOKEN.lower(): SecretStr(secret), "join_token": join_token}
    try:
        settings = EdgeSettings(**given)
    except ValidationError as error:
        problems += [_problem(record) for record in error.errors(include_input=False, include_url=False)]
    if problems:
        raise SettingsError("\n".join(problems))
    return settings
