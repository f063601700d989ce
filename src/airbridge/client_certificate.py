"""A worker's client certificate and its private key, as one file that is replaced whole.

One file, because a key beside the certificate of another one would lock the host out. Its first line says in
JSON whose it is and how long it is good; TLS libraries skip text before the first PEM block::

    # AirBridge client certificate {"name": "north-1", "not_after": "…", "not_before": "…", "serial": "…"}
    -----BEGIN PRIVATE KEY-----
    -----BEGIN CERTIFICATE-----

Reading it takes the standard library only: the worker's health check does, every half minute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

__all__ = ["ClientCertificate", "new_request"]

_TITLE: Final = "# AirBridge client certificate "
_RENEWED_AFTER: Final = 2 / 3
"""Of the lifetime: the last third is what a control plane may be away without locking anyone out."""

_MISSED_AFTER: Final = 5 / 6


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that the control plane issued to one worker, with the key that it belongs to."""

    name: str
    serial: str
    """Decimal, as the gateway reports it."""
    not_before: datetime
    not_after: datetime
    certificate: str
    """PEM."""
    key: str = field(repr=False)
    """PEM."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        :raises ValueError: it is none; the message does not repeat it
        """
        first, _, rest = text.partition("\n")
        marker = "-----BEGIN CERTIFICATE-----"
        key, found, certificate = rest.partition(marker)
        try:
            said = json.loads(first.removeprefix(_TITLE))
            made = cls(
                str(said["name"]),
                str(said["serial"]),
                datetime.fromisoformat(said["not_before"]),
                datetime.fromisoformat(said["not_after"]),
                found + certificate,
                key,
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            made = None
        if made is None or not found or "PRIVATE KEY-----" not in key or made.not_after.tzinfo is None:
            raise ValueError("is not a client certificate with its key, as the control plane writes it")
        return made

    @property
    def text(self) -> str:
        """What is written into the file."""
        said = {
            "name": self.name,
            "serial": self.serial,
            "not_before": self.not_before.astimezone(UTC).isoformat(timespec="seconds"),
            "not_after": self.not_after.astimezone(UTC).isoformat(timespec="seconds"),
        }
        return f"{_TITLE}{json.dumps(said, sort_keys=True)}\n{self.key.strip()}\n{self.certificate.strip()}\n"

    def is_due(self, now: datetime) -> bool:
        """Return whether it is time to ask for the next one."""
        return now >= self.not_before + (self.not_after - self.not_before) * _RENEWED_AFTER

    def is_overdue(self, now: datetime) -> bool:
        """Return whether the next one should be there by now: somebody has to look."""
        return now >= self.not_before + (self.not_after - self.not_before) * _MISSED_AFTER

    def is_good(self, now: datetime) -> bool:
        """Return whether the gateway still takes it, as far as the time goes."""
        return now < self.not_after


def new_request(name: str) -> tuple[str, str]:
    """Make a private key that never leaves this host, and the signing request for it; both PEM."""
    # Late: the health check imports this module and makes no key.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        request.public_bytes(serialization.Encoding.PEM).decode(),
    )
