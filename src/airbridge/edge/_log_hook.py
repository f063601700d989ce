"""The S3 client that sends task logs: it signs with the worker's own credential.

What Airflow calls the connection of the log bucket stands in the environment, which every task inherits and
may print. So the secret is not in there: it is taken from where the worker itself has it, ``[api_auth]
jwt_secret``. Needs Airflow.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.configuration import conf
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

__all__ = ["WorkerS3Hook"]


class WorkerS3Hook(S3Hook):  # type: ignore[misc]
    """Airflow's S3 hook, with the worker's name as access key id and the worker's secret."""

    @cached_property
    def conn_config(self) -> Any:
        """The connection, completed."""
        config = super().conn_config
        config.aws_access_key_id = conf.get("api_auth", "jwt_issuer")
        config.aws_secret_access_key = conf.get("api_auth", "jwt_secret")
        return config
