"""The CA that signs the client certificates of edge workers, and nothing else.

It is not the CA of the gateway's own certificate: whoever holds one of the two keys cannot stand in for the
other side. What a certificate says is decided here; of a signing request only the public key is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from airbridge.client_certificate import ClientCertificate, new_request
from airbridge.errors import SettingsError
from airbridge.identity.model import IssuedCertificate, check_name, duration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["AUTHORITY_FILE", "LIFETIME_SETTING", "Authority", "RequestError", "lifetime", "load_authority"]

AUTHORITY_FILE: Final = "client-ca"
"""Name of the secret that holds the CA's key and certificate."""
LIFETIME_SETTING: Final = "AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME"

_DEFAULT_LIFETIME: Final = "30d"
# Short enough to try a renewal; long enough that a host renews before it could end on the way.
_SHORTEST_LIFETIME: Final = timedelta(seconds=30)
_LONGEST_LIFETIME: Final = timedelta(
    days=397
)  # what browsers take of servers; longer ones are never replaced
_CA_LIFETIME: Final = timedelta(days=3650)
# Clocks of edge hosts and of the gateway's machine differ a little.
_BACKDATED: Final = timedelta(minutes=5)
_LONGEST_REQUEST: Final = 8192
_CURVES: Final = ("secp256r1", "secp384r1")


class RequestError(ValueError):
    """A signing request that is none, or is for a key that is not taken."""


def lifetime(environ: Mapping[str, str]) -> timedelta:
    """Return how long new certificates are good.

    :raises SettingsError: the setting is no length of time, or an unusable one
    """
    text = environ.get(LIFETIME_SETTING) or _DEFAULT_LIFETIME
    length = duration(text)
    if not _SHORTEST_LIFETIME <= length <= _LONGEST_LIFETIME:
        raise SettingsError(
            f"{LIFETIME_SETTING}={text} is no lifetime of a client certificate",
            fix="30s to 397d; 30d is usual",
        )
    return length


def load_authority(folder: Path) -> Authority | None:
    """Return the CA whose key lies in ``folder``; ``None``: it is not there.

    :raises SettingsError: what is there is none
    """
    try:
        text = (folder / AUTHORITY_FILE).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the client CA {folder / AUTHORITY_FILE} cannot be read: {error}",
            fix="the volume secrets-issuing must belong to uid 50000",
        ) from None
    try:
        return Authority.parse(text)
    except ValueError as error:
        raise SettingsError(
            f"the client CA {folder / AUTHORITY_FILE} {error}", fix="put the one that was made first back"
        ) from None


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate, which the gateway checks with, and its key, which signs."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make one with a new random key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AirBridge client CA")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + _CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :attr:`text` gives.

        :raises ValueError: it is none
        """
        try:
            certificate = x509.load_pem_x509_certificate(text.encode())
            key: Any = serialization.load_pem_private_key(text.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("is not a private key and a certificate in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("is not an elliptic-curve key with its own certificate")
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            raise ValueError("is not the certificate of a CA") from None
        if not constraints.ca:
            raise ValueError("is not the certificate of a CA")
        return cls(certificate, key)

    @property
    def certificate_text(self) -> str:
        """The certificate in PEM; no secret."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def text(self) -> str:
        """Key and certificate in PEM."""
        key: bytes = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key.decode() + self.certificate_text

    def issue(self, name: str, request: str, length: timedelta) -> IssuedCertificate:
        """Sign a certificate for the worker ``name`` with the public key of ``request``.

        It opens nothing before it was recorded: the control plane takes serial numbers that it knows.

        :raises RequestError: ``request`` is no signing request for a key that is taken
        """
        check_name(name)
        now = datetime.now(UTC).replace(microsecond=0)
        public_key = _requested_key(request)
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + length)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            # The gateway reads the name here: a label of DNS is what a worker's name is.
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(name), x509.UniformResourceIdentifier(f"urn:airbridge:worker:{name}")]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        text = certificate.public_bytes(serialization.Encoding.PEM).decode()
        # Lifetimes are counted from now: the time before is for slow clocks only.
        return IssuedCertificate(name, str(serial), now, now + length, text)

    def issue_with_key(self, name: str, length: timedelta) -> tuple[IssuedCertificate, ClientCertificate]:
        """Make a key here as well, for a host that is given its first certificate in a file."""
        key, request = new_request(name)
        issued = self.issue(name, request, length)
        return issued, ClientCertificate(
            name, issued.serial, issued.not_before, issued.not_after, issued.certificate, key
        )


def _requested_key(request: str) -> Any:
    if len(request) > _LONGEST_REQUEST:
        raise RequestError("the certificate request is too long")
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        proven = parsed.is_signature_valid
        key = parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise RequestError("the certificate request is none in PEM") from None
    if not proven:
        raise RequestError("the certificate request is not signed with its own key")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise RequestError("the key of a certificate request must be P-256, P-384 or Ed25519")


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
