"""Airflow's own hook for local settings: what a container says on its standard output.

Airflow 3.0.4 leaves structlog unconfigured in the processes that supervise tasks, so that they print every
message between supervisor and task at debug level, values of XComs, variables and connections included
(airflow/sdk/execution_time/supervisor.py, ``log``). Task logs are written elsewhere and keep their own level.
"""

from __future__ import annotations

import logging
import os

import structlog

__all__: list[str] = []

_LEVEL = getattr(logging, os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO").upper(), logging.INFO)

structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(_LEVEL),
    # One JSON object a line, with what is bound to the task or request at hand (correlation_id).
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(),
    ],
)
# One line a request, several requests a task: of use to nobody who did not ask for debug.
for _name in ("httpx", "httpcore", "botocore", "airflow.providers.amazon.aws.utils.connection_wrapper"):
    logging.getLogger(_name).setLevel(max(_LEVEL, logging.WARNING) if _LEVEL > logging.DEBUG else _LEVEL)
