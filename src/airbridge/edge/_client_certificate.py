"""Where this host's client certificate lies. Standard library only: the health check reads it too.

The state directory holds the one whose key was made here, by joining or by renewal; a bundle may bring a
first one along (``CONTROL_PLANE_CERTIFICATE_FILE``). The newer of the two counts; the uplink chooses by the
same rule (``edge-worker/uplink/client-certificate.sh``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.client_certificate import ClientCertificate
from airbridge.token_source import STATE_DIR, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CERTIFICATE_FILE", "SETTING", "current_certificate", "keep_certificate"]

SETTING: Final = "CONTROL_PLANE_CERTIFICATE_FILE"
CERTIFICATE_FILE: Final = "client.pem"
"""In the state directory: key and certificate, mode 0600. The uplink reads it as well."""


def current_certificate(environ: Mapping[str, str]) -> tuple[Path, ClientCertificate] | None:
    """Return the newest certificate of this host that has not expired, and its file; ``None``: none."""
    places = [Path(environ.get("EDGE_STATE_DIR") or STATE_DIR) / CERTIFICATE_FILE]
    if given := environ.get(SETTING, "").strip():
        places.append(Path(given))
    now, worker = datetime.now(UTC), environ.get("WORKER_NAME", "").strip()
    found = [(path, held) for path in places if (held := _read(path)) and held.name == worker]
    good = [(path, held) for path, held in found if held.is_good(now)]
    return max(good, key=lambda one: one[1].not_before, default=None)


def keep_certificate(held: ClientCertificate, state_dir: Path) -> None:
    """Write it into the state directory, whole or not at all; the uplink shows it a second later.

    :raises OSError: it cannot be written
    """
    write_whole(state_dir / CERTIFICATE_FILE, held.text)


def _read(path: Path) -> ClientCertificate | None:
    try:
        return ClientCertificate.parse(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
