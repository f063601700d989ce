"""The courier's settings, read from its environment.

Not with pydantic, which would take a fifth of the service's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.credential import is_worker_name
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CourierSettings", "load_settings"]

_BYTES_PER_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CourierSettings:
    """Settings of one courier."""

    worker_name: str
    uplink_url: str = "http://uplink:8080"
    spool: Path = Path("/spool")
    """Folder of the spool; a volume."""
    spool_bytes: int = 512 * _BYTES_PER_MIB
    absence_limit_s: float = 900.0
    """Seconds of absence for which tasks go on; the control plane's own patience must be longer."""
    host: str = "0.0.0.0"  # noqa: S104 - inside the edge host's compose network, which publishes nothing
    port: int = 8080


def _number(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SettingsError(
            f"{name}: {text!r} is not a whole number from {least} to {most}", fix="correct or unset it"
        )
    return int(text)


def load_settings(environ: Mapping[str, str]) -> CourierSettings:
    """Read and check the settings.

    :raises SettingsError: one of them is wrong
    """
    name = environ.get("WORKER_NAME", "")
    if not is_worker_name(name):
        raise SettingsError(
            f"WORKER_NAME: {name!r} is no worker's name",
            fix="set it to a name that no other worker has: a-z, 0-9 and hyphens, 63 at most",
        )
    return CourierSettings(
        worker_name=name,
        uplink_url=(environ.get("UPLINK_URL") or "http://uplink:8080").rstrip("/"),
        spool=Path(environ.get("COURIER_SPOOL") or "/spool"),
        spool_bytes=_number(environ, "COURIER_SPOOL_MB", 512, 1, 1_048_576) * _BYTES_PER_MIB,
        absence_limit_s=_number(environ, "EDGE_ABSENCE_LIMIT", 900, 1, 86_400),
        port=_number(environ, "COURIER_PORT", 8080, 1, 65_535),
    )
