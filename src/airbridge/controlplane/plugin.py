"""The Airflow plugin: loaded by every Airflow process, active in the api-server only.

Extension points of Airflow 3.0.4: ``fastapi_root_middlewares`` and ``fastapi_apps``
(airflow/plugins_manager.py, ``initialize_fastapi_plugins``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

__all__ = ["AirbridgePlugin"]

# The same test as the edge provider's own plugin, which mounts its API in this process only.
_IN_API_SERVER = sys.argv[1:2] == ["api-server"]


def _middleware() -> dict[str, Any]:
    from airbridge.controlplane._edge_middleware import EdgeMiddleware
    from airbridge.controlplane._edge_token import EdgeTokens

    file = Path(os.environ.get("AIRBRIDGE_EDGE_TOKEN_FILE", "/secrets/signing/edge-token"))
    edge_token = file.read_text().strip() if file.is_file() else ""
    from airflow.configuration import conf

    internal = conf.get("api_auth", "jwt_secret", fallback="")
    tokens = EdgeTokens(edge_token, internal) if edge_token and internal else None
    return {"name": "AirBridge edge door", "middleware": EdgeMiddleware, "kwargs": {"tokens": tokens}}


def _fleet_api() -> dict[str, Any]:
    from airbridge.controlplane._fleet_api import create_fleet_api
    from airbridge.controlplane._late_reports import ignore_late_reports

    ignore_late_reports()
    return {"name": "AirBridge fleet API", "app": create_fleet_api(), "url_prefix": "/airbridge"}


class AirbridgePlugin(AirflowPlugin):  # type: ignore[misc]
    """Authenticates edge workers and answers their questions about themselves."""

    name = "airbridge"
    fastapi_root_middlewares = [_middleware()] if _IN_API_SERVER else []
    fastapi_apps = [_fleet_api()] if _IN_API_SERVER else []
