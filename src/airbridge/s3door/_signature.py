"""Whether a request was signed by whom it claims: Signature Version 4 in its header and its presigned form.

After "Authenticating Requests: Using the Authorization Header" and "Using Query Parameters" (Amazon S3 API
Reference, https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).

A proxy of ours changes the host that a request names and the path that it begins with. What was signed is one
of few things, all of which are tried: what arrived; what arrived without the gateway's base path; and, behind
an uplink, the host that the uplink was called by.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from airbridge.s3door._canonical import (
    ALGORITHM,
    Scope,
    canonical_query,
    canonical_request,
    encode_path,
    signature,
    signing_key,
    string_to_sign,
)
from airbridge.s3door._errors import S3Error, invalid_request, not_signed, wrong_signature
from airbridge.s3door._request import BASE_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airbridge.s3door._request import Request

__all__ = ["LONGEST_EXPIRY", "MAX_SKEW", "SIGNED_HOST", "UNSIGNED", "Claim", "Proof", "read_claim", "verify"]

MAX_SKEW: Final = timedelta(minutes=15)
"""How far the clocks of signer and verifier may differ, as at AWS."""
LONGEST_EXPIRY: Final = 604_800
"""Seconds that a presigned address may live: seven days, as at AWS."""
SIGNED_HOST: Final = "x-airbridge-signed-host"
"""What an uplink was called by, which is what its clients signed as their host."""

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
"""What ``x-amz-content-sha256`` says of a body that the signature says nothing of."""
_IN_QUERY: Final = "X-Amz-Signature"
_FIELDS: Final = ("Credential", "SignedHeaders", "Signature")
_SIGNATURE: Final = re.compile("[0-9a-f]{64}")
_HEADER_NAMES: Final = re.compile("[a-z0-9_.-]+(;[a-z0-9_.-]+)*")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"
_TIMESTAMP_TEXT: Final = re.compile("[0-9]{8}T[0-9]{6}Z")
# Verified against for names that nobody has, and where there is one secret only, so that every verification
# takes as long as every other.
_NOBODYS: Final = secrets.token_urlsafe(48)
_SECRETS: Final = 2  # at most, while a secret is rotated


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about its signature, unproved."""

    name: str
    """Access key id: the name of a worker or a publisher."""
    scope: Scope
    timestamp: str
    signed_headers: tuple[str, ...]
    signature: str
    payload: str
    """``x-amz-content-sha256``, which is part of what is signed."""
    presigned: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """A signature that holds, with what the signatures of the body's chunks go on from."""

    claim: Claim
    key: bytes = field(repr=False)


def _malformed(message: str, reason: str = "signature_malformed") -> S3Error:
    return invalid_request(message, "AuthorizationHeaderMalformed", reason)


def read_claim(request: Request, region: str, now: datetime) -> Claim:
    """Return what the request claims, its form, scope and time checked.

    :param region: the only one that is served
    :raises S3Error: it is not signed, or not in a way that could hold
    """
    presigned = request.parameter(_IN_QUERY) is not None
    authorization = request.headers.get("authorization")
    if presigned and authorization is not None:
        raise invalid_request("Only one way of signing is allowed.", reason="signature_doubled")
    if not presigned and authorization is None:
        raise not_signed()
    claim = _from_query(request) if presigned else _from_header(request, authorization or "")
    if claim.scope.region != region or claim.scope.service != "s3":
        raise _malformed(f"The region is '{region}' and the service 's3' here.", "signature_scope")
    if claim.scope.day != claim.timestamp[:8]:
        raise _malformed("The date of the credential is not that of the request.", "signature_scope")
    _check_time(request, claim, now)
    _check_signed_headers(request, claim)
    return claim


def _from_header(request: Request, authorization: str) -> Claim:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise invalid_request(f"The only signature here is {ALGORITHM}.", reason="signature_algorithm")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in _FIELDS or name in fields:
            raise _malformed("The Authorization header is malformed.")
        fields[name] = value
    if len(fields) != len(_FIELDS):
        raise _malformed("The Authorization header is incomplete.")
    payload = request.headers.get("x-amz-content-sha256")
    if payload is None:
        raise invalid_request("The header x-amz-content-sha256 is missing.", reason="payload_hash_missing")
    if any(name.lower().startswith(b"x-amz-") for name, _ in request.query):
        raise invalid_request("Signature parameters belong to presigned requests.", reason="query_odd")
    return _claim(fields, request.headers.get("x-amz-date", ""), payload, presigned=False)


def _from_query(request: Request) -> Claim:
    if request.parameter("X-Amz-Algorithm") != ALGORITHM:
        raise invalid_request(f"The only signature here is {ALGORITHM}.", reason="signature_algorithm")
    known = {"Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Content-Sha256"}
    for name, _ in request.query:
        text = name.decode("latin-1")
        if text.lower().startswith("x-amz-") and text[len("x-amz-") :] not in known:
            # A session token among them: no credential of ours has one.
            raise invalid_request(f"The parameter {text[:64]} is not known here.", reason="query_odd")
    fields = {name: request.parameter(f"X-Amz-{name}") or "" for name in _FIELDS}
    payload = request.parameter("X-Amz-Content-Sha256") or request.headers.get("x-amz-content-sha256")
    return _claim(fields, request.parameter("X-Amz-Date") or "", payload or UNSIGNED, presigned=True)


def _claim(fields: dict[str, str], timestamp: str, payload: str, *, presigned: bool) -> Claim:
    name, slash, scope = fields["Credential"].partition("/")
    try:
        parsed = Scope.parse(scope)
    except ValueError:
        slash = ""
        parsed = Scope("", "")
    if not slash or not _HEADER_NAMES.fullmatch(fields["SignedHeaders"]):
        raise _malformed("The credential or the list of signed headers is malformed.")
    if not _SIGNATURE.fullmatch(fields["Signature"]):
        raise _malformed("The signature is malformed.")
    if not _TIMESTAMP_TEXT.fullmatch(timestamp):
        raise S3Error(403, "AccessDenied", "X-Amz-Date is missing or malformed.", reason="date_missing")
    signed = tuple(fields["SignedHeaders"].split(";"))
    if list(signed) != sorted(set(signed)):
        raise _malformed("The signed headers are not sorted, or one is there twice.")
    return Claim(name, parsed, timestamp, signed, fields["Signature"], payload, presigned)


def _check_time(request: Request, claim: Claim, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(claim.timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        raise S3Error(403, "AccessDenied", "X-Amz-Date is no time.", reason="date_missing") from None
    too_skewed = S3Error(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        reason="clock_skewed",
    )
    if not claim.presigned:
        if abs(now - signed_at) > MAX_SKEW:
            raise too_skewed
        return
    expires = request.parameter("X-Amz-Expires") or ""
    if not re.fullmatch("[0-9]{1,6}", expires) or not 1 <= int(expires) <= LONGEST_EXPIRY:
        raise invalid_request(
            f"X-Amz-Expires must be 1 to {LONGEST_EXPIRY} seconds.",
            "AuthorizationQueryParametersError",
            "expiry_out_of_bounds",
        )
    if signed_at - now > MAX_SKEW:
        raise too_skewed
    if now > signed_at + timedelta(seconds=int(expires)):
        raise S3Error(403, "AccessDenied", "Request has expired", reason="presigned_expired")


def _check_signed_headers(request: Request, claim: Claim) -> None:
    """What decides must be signed: the host, and everything of Amazon's own."""
    if "host" not in claim.signed_headers:
        raise invalid_request("The host must be signed.", "AccessDenied", "header_not_signed")
    for name in request.headers:
        if name.startswith("x-amz-") and name not in claim.signed_headers:
            # A presigned address says by itself that the body is not signed; SDKs add this header to it.
            if claim.presigned and name == "x-amz-content-sha256" and request.headers[name] == UNSIGNED:
                continue
            raise S3Error(
                403,
                "AccessDenied",
                f"There were headers present in the request which were not signed: {name[:64]}",
                reason="header_not_signed",
            )
    if any(name not in request.headers for name in claim.signed_headers):
        raise wrong_signature("header_stripped")


def verify(request: Request, claim: Claim, known: Sequence[str]) -> Proof | None:
    """Return the proof that one of the ``known`` secrets signed this request; ``None``: none of them did.

    Always the same amount of work, whatever is wrong.

    :param known: the secrets of the claimed principal that are good now; none for a name that nobody has
    """
    query = canonical_query(pair for pair in request.query if pair[0] != _IN_QUERY.encode())
    texts = []
    for host, path in _ways(request):
        headers = {**request.headers, "host": host}
        canonical = canonical_request(
            request.method, path, query, headers, claim.signed_headers, claim.payload
        )
        texts.append(string_to_sign(claim.timestamp, claim.scope, canonical))
    proof = None
    for secret in [*known, *[_NOBODYS] * _SECRETS][:_SECRETS]:
        key = signing_key(secret, claim.scope)
        for text in texts:
            if hmac.compare_digest(signature(key, text), claim.signature) and secret in known:
                proof = Proof(claim, key)
    return proof


def _ways(request: Request) -> list[tuple[str, str]]:
    """Return the hosts and paths that may have been signed; always three, some of them twice."""
    path = encode_path(request.path)
    host = request.headers.get("host", "")
    given = request.headers.get(SIGNED_HOST, host)
    return [
        (host, BASE_PATH + path if request.based else path),
        (host, path),
        (given if _HOST.fullmatch(given) else host, path),
    ]
