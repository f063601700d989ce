"""Settings of one service, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ._errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PORTS", "Settings"]

#: Service -> port, in the order of the pipeline.
PORTS = {"ingestion": 8011, "miner": 8012, "analyzer": 8013, "writer": 8014, "reporting": 8016}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a service listens, where it keeps its data and where the others are."""

    service: str
    data_dir: Path
    #: 0 = any free port.
    port: int
    #: A container has no other way to be reached from its network; compose publishes no port of it.
    host: str = "0.0.0.0"  # noqa: S104
    #: Service -> base URL, without a slash at its end.
    peers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, service: str, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``DEMO_DATA_DIR``, ``DEMO_PORT`` and ``DEMO_<SERVICE>_URL``; SettingsError names a bad one."""
        if service not in PORTS:
            raise SettingsError(f"DEMO_SERVICE is {service!r} | fix: set it to one of {', '.join(PORTS)}")
        peers = {}
        for peer, default_port in PORTS.items():
            name = f"DEMO_{peer.upper()}_URL"
            url = environment.get(name) or f"http://{peer}:{default_port}"
            if urlsplit(url).scheme != "http" or not urlsplit(url).hostname:
                raise SettingsError(f"{name} is {url!r} | fix: set it to http://<host>:<port>")
            peers[peer] = url.rstrip("/")
        text = environment.get("DEMO_PORT") or str(PORTS[service])
        if not (text.isascii() and text.isdigit() and int(text) <= 65535):
            raise SettingsError(f"DEMO_PORT is {text!r} | fix: set it to a port number")
        return cls(
            service=service,
            data_dir=Path(environment.get("DEMO_DATA_DIR") or "/data"),
            port=int(text),
            peers=peers,
        )
