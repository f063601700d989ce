"""Mutual TLS: whose client certificate a request came with, and the next one for a worker.

The gateway checks in the handshake that a certificate is one of our CA, and tells us its name and serial
number; it takes such headers off whatever a client sends. Which certificates are good is ours to know: one
that was replaced, or whose worker was revoked, is still well signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from airbridge.controlplane._refusal import Refusal
from airbridge.errors import SettingsError
from airbridge.identity.authority import RequestError, lifetime, load_authority

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airbridge.identity.authority import Authority
    from airbridge.identity.model import IssuedCertificate, Worker

__all__ = ["CLIENT_NAME", "CLIENT_SERIAL", "SWITCH", "ClientCertificates", "described"]

CLIENT_NAME: Final = b"x-airbridge-client-name"
"""Header with the name that the client certificate is for; set by the gateway, empty without one."""
CLIENT_SERIAL: Final = b"x-airbridge-client-serial"
"""Header with its serial number, decimal."""
SWITCH: Final = "GATEWAY_CLIENT_CERTIFICATES"

_VALUES: Final = ("off", "require")


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """Checks and issues client certificates.

    Args:
        required: refuse requests without one, or with another worker's.
        authority: what signs new ones; ``None``: nobody gets one.
        length: how long a new one is good.
    """

    required: bool = False
    authority: Authority | None = None
    length: timedelta = timedelta(days=30)

    @classmethod
    def of(cls, environ: Mapping[str, str], folder: Path) -> ClientCertificates:
        """Return what the settings say, with the CA in ``folder``.

        :raises SettingsError: a setting is malformed, or the CA is none
        """
        switch = environ.get(SWITCH) or "off"
        if switch not in _VALUES:
            raise SettingsError(f"{SWITCH}={switch} is no choice", fix=f"one of {', '.join(_VALUES)}")
        return cls(switch == "require", load_authority(folder), lifetime(environ))

    def check(self, name: str | None, serial: str | None, worker: Worker) -> None:
        """Make sure that the request of ``worker``, who has proved its secret, came with its own certificate.

        :raises Refusal: it did not, and one is required
        """
        if not self.required:
            return
        if not name or not serial:
            raise Refusal(
                403, "certificate_missing", "an edge host needs its client certificate for this control plane"
            )
        if name != worker.name:
            raise Refusal(
                403,
                "certificate_mismatch",
                f"the client certificate is of another worker than the credential of '{worker.name}'",
            )
        if not worker.holds_certificate(serial, datetime.now(UTC)):
            raise Refusal(
                403, "certificate_ended", "the client certificate was replaced by a newer one, or has ended"
            )

    def issue(self, name: str, request: object) -> IssuedCertificate:
        """Sign the next certificate of the worker ``name``; it is good once it is recorded.

        :raises Refusal: no CA, or the request is none
        """
        if self.authority is None:
            raise Refusal(503, "not_ready", "the control plane has no client CA; run its service 'secrets'")
        if not isinstance(request, str):
            raise Refusal(400, "request_invalid", "the call needs a certificate request in PEM")
        try:
            return self.authority.issue(name, request, self.length)
        except RequestError as error:
            raise Refusal(400, "request_invalid", str(error)) from None


def described(issued: IssuedCertificate) -> dict[str, str]:
    """Return what the worker is told of its new certificate."""
    return {
        "certificate": issued.certificate,
        "serial": issued.serial,
        "not_before": issued.not_before.isoformat(),
        "not_after": issued.not_after.isoformat(),
    }
