"""Requests signed by botocore, AWS's own implementation, as the door reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest import mock
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from airbridge.s3door._errors import S3Error
from airbridge.s3door._request import Request
from airbridge.s3door._signature import Claim, Proof, read_claim, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "team-a"
SECRET = "q" * 64
REGION = "us-east-1"
HOST = "gateway:8443"


@dataclass(frozen=True)
class Sent:
    """A request on the wire: what an attacker may change."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def header(self, name: str, value: str | None) -> Sent:
        """Set a header; ``None`` takes it out."""
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def value(self, name: str) -> str:
        """A header's value."""
        return next(value for known, value in self.headers if known.lower() == name.lower())

    def read(self) -> Request:
        """As the door reads it."""
        raw = [(name.encode(), value.encode()) for name, value in self.headers]
        return Request.read(self.method, self.target, raw)


def signed(
    method: str = "GET",
    path: str = "/airbridge-dags/dev/orders/dags/a.py",
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    name: str = NAME,
    secret: str = SECRET,
    region: str = REGION,
    host: str = HOST,
    expires: int = 0,
    at: datetime | None = None,
    payload: str = "",
) -> Sent:
    """A request that botocore signed, now or ``at`` a time; presigned where ``expires`` is given.

    ``payload`` is what the signature says of the body, where that is not the body's own hash.
    """
    request = AWSRequest(method=method, url=f"https://{host}{path}", headers=headers or {}, data=body)
    request.context["payload_signing_enabled"] = True  # else botocore leaves the body out over HTTPS
    credentials = Credentials(name, secret)
    signer = S3SigV4QueryAuth if expires else S3SigV4Auth
    more = {"expires": expires} if expires else {}
    with mock.patch("botocore.auth.get_current_datetime", return_value=at or datetime.now(UTC)):
        auth = signer(credentials, "s3", region, **more)
        if payload:
            auth.payload = lambda _request: payload
        auth.add_auth(request)
    parts = urlsplit(request.url)
    sent = {"Host": host, **{key: str(value) for key, value in request.headers.items()}}
    if body:
        sent["Content-Length"] = str(len(body))
    return Sent(method, f"{parts.path}{'?' if parts.query else ''}{parts.query}", tuple(sent.items()))


def proved(
    sent: Sent, secrets: Sequence[str] = (SECRET,), now: datetime | None = None
) -> tuple[Claim, Proof | None]:
    """Claim and proof of a request."""
    request = sent.read()
    claim = read_claim(request, REGION, now or datetime.now(UTC))
    return claim, verify(request, claim, secrets)


def outcome(sent: Sent, secrets: Sequence[str] = (SECRET,), now: datetime | None = None) -> str:
    """``ok``, ``signature_wrong``, or the reason of the refusal."""
    try:
        return "ok" if proved(sent, secrets, now)[1] else "signature_wrong"
    except S3Error as error:
        return error.reason
