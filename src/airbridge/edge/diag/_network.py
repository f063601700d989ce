"""From the name of the control plane to its clock: name resolution, TCP, TLS, time."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from airbridge.edge._client_certificate import current_certificate
from airbridge.edge.diag._model import Check, Context, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.edge.settings import EdgeSettings

__all__ = ["NETWORK_CHECKS", "trust"]

_DAY_S: Final = 86_400

# What OpenSSL calls the reasons of a failed verification (openssl-verification-options(1)).
_EXPIRED: Final = {10}
_NOT_YET_VALID: Final = {9}
_UNKNOWN_CA: Final = {2, 18, 19, 20, 21}
_WRONG_NAME: Final = {62, 64}


def trust(settings: EdgeSettings) -> ssl.SSLContext:
    """Return the TLS client that an edge host uses: its CA file or the system's CAs, its own certificate."""
    context = ssl.create_default_context(cafile=settings.control_plane_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if found := current_certificate(os.environ):
        context.load_cert_chain(found[0])
    return context


def _untrusting() -> ssl.SSLContext:
    """Return a TLS client that only looks. Nothing secret is ever sent over its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _dns(context: Context) -> str:
    settings = context.settings
    try:
        found = socket.getaddrinfo(
            settings.control_plane_host, settings.control_plane_port, type=socket.SOCK_STREAM
        )
    except (socket.gaierror, UnicodeError) as error:
        raise Failed(
            f"{settings.control_plane_host} does not resolve: {getattr(error, 'strerror', None) or error}",
            "check the host name in CONTROL_PLANE_URL and this host's DNS (or extra_hosts)",
        ) from None
    addresses = sorted({str(entry[4][0]) for entry in found})
    return f"{settings.control_plane_host} is {', '.join(addresses)}"


def _connect(context: Context) -> socket.socket:
    settings = context.settings
    address = (settings.control_plane_host, settings.control_plane_port)
    return socket.create_connection(address, timeout=context.limits.timeout_s)


def _tcp(context: Context) -> str:
    settings = context.settings
    where = f"{settings.control_plane_host}:{settings.control_plane_port}"
    started = time.perf_counter()
    try:
        _connect(context).close()
    except TimeoutError:
        raise Failed(
            f"{where} does not answer within {context.limits.timeout_s:g} s",
            "open outbound TCP from this host to that port in every firewall between",
        ) from None
    except OSError as error:
        raise Failed(
            f"{where}: {error.strerror or error}",
            "check the port in CONTROL_PLANE_URL, and that the gateway runs and publishes it",
        ) from None
    return f"{where} in {(time.perf_counter() - started) * 1000:.0f} ms"


@contextlib.contextmanager
def _handshake(context: Context, client: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        _connect(context) as plain,
        client.wrap_socket(plain, server_hostname=context.settings.control_plane_host) as connection,
    ):
        yield connection


def _tls_version(context: Context) -> str:
    try:
        with _handshake(context, _untrusting()) as connection:
            version, cipher = connection.version() or "unknown", (connection.cipher() or ("unknown",))[0]
    except OSError as error:
        raise Failed(
            f"no TLS handshake: {getattr(error, 'reason', None) or error}",
            "point CONTROL_PLANE_URL at the gateway's HTTPS port; something else listens there",
        ) from None
    if version not in ("TLSv1.2", "TLSv1.3"):
        raise Failed(
            f"{version}, at least TLSv1.2 is wanted",
            "something between this host and the gateway speaks old TLS: update or bypass it",
        )
    return f"{version}, {cipher}"


def _explain(error: ssl.SSLCertVerificationError, settings: EdgeSettings) -> Failed:
    source = f"CONTROL_PLANE_CA_FILE ({settings.control_plane_ca_file})"
    if settings.control_plane_ca_file is None:
        source = "the system's CAs (CONTROL_PLANE_CA_FILE is empty)"
    fixes = (
        (_EXPIRED, "renew the gateway's certificate; if it is valid, set this host's clock right"),
        (_NOT_YET_VALID, "set this host's clock right (NTP)"),
        (
            _WRONG_NAME,
            "use a name in CONTROL_PLANE_URL that the gateway's certificate holds, or add it there",
        ),
        (
            _UNKNOWN_CA,
            f"the certificate is not signed by {source}: copy the control plane's CA file to this host",
        ),
    )
    fix = next((text for codes, text in fixes if error.verify_code in codes), "see the gateway's log")
    return Failed(f"certificate refused: {error.verify_message.rstrip('.')}", fix)


def _tls_chain(context: Context) -> str:
    settings = context.settings
    try:
        with _handshake(context, trust(settings)) as connection:
            certificate = connection.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise _explain(error, settings) from None
    except OSError as error:
        raise Failed(
            f"no TLS handshake: {getattr(error, 'reason', None) or error}",
            "point CONTROL_PLANE_URL at the gateway's HTTPS port; something else listens there",
        ) from None
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (expires - time.time()) / _DAY_S
    value = f"verified for {settings.control_plane_host}, {days:.1f} days to expiry"
    if days < context.limits.min_certificate_days:
        raise Failed(
            f"{value}, at least {context.limits.min_certificate_days:g} are wanted",
            "find out why the gateway does not renew its certificate (its log), and renew it",
        )
    return value


def _clock(context: Context) -> str:
    """Compare clocks by the Date header of any answer.

    The certificate is not verified here: a wrong clock is one reason why it would be refused, and
    all that a liar could do is to make this check fail or pass.
    """
    settings = context.settings
    connection = http.client.HTTPSConnection(
        settings.control_plane_host,
        settings.control_plane_port,
        timeout=context.limits.timeout_s,
        context=_untrusting(),
    )
    before = time.time()
    try:
        connection.request("GET", "/healthz")
        date = connection.getresponse().getheader("Date")
    except (OSError, http.client.HTTPException) as error:
        raise Failed(
            f"no answer to ask for the time: {type(error).__name__}",
            "point CONTROL_PLANE_URL at the gateway's HTTPS port",
        ) from None
    finally:
        connection.close()
    here = (before + time.time()) / 2
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        raise Failed("the answer names no time", "something between removes the Date header") from None
    # The header has whole seconds: half of one is the best guess for what was cut off.
    skew = here - there.timestamp() - 0.5
    value = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the control plane"
    if abs(skew) > context.limits.max_clock_skew_s:
        now = datetime.fromtimestamp(here, UTC).isoformat(timespec="seconds")
        raise Failed(
            f"clock ({now}) is {value}, at most {context.limits.max_clock_skew_s:g} s are allowed",
            "set the clock right and keep it so (NTP: systemd-timesyncd or chrony) on both sides",
        )
    return value


NETWORK_CHECKS: Final = (
    Check("name resolution", _dns, needs=("settings",)),
    Check("tcp", _tcp, needs=("name resolution",)),
    Check("tls version", _tls_version, needs=("tcp",)),
    Check("tls chain", _tls_chain, needs=("tls version",)),
    Check("clock", _clock, needs=("tls version",)),
)
