"""Checks what an edge worker proves itself with, and makes the token that the edge API behind accepts.

Worker side, unpatched: ``[api_auth] jwt_secret`` is the worker's own secret and ``[api_auth] jwt_issuer`` its
name, so every call of the stock edge worker carries ``iss`` under an HMAC that this worker alone can make
(airflow/providers/edge3/cli/api_client.py, ``jwt_generator``). Control-plane side: the edge API verifies with
a secret that never leaves this process.

The Execution API is called by another than the worker's own client (the Task SDK), so there the uplink adds
the credential itself to each request.
"""

from __future__ import annotations

import hmac
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import jwt

from airbridge.controlplane._refusal import Refusal
from airbridge.credential import Credential, is_worker_name

if TYPE_CHECKING:
    from airbridge.identity.model import Worker

__all__ = [
    "check_credential",
    "check_still_good",
    "check_token",
    "claimed_worker",
    "credential_name",
    "resign",
]

_ALGORITHM: Final = "HS512"  # what the stock edge worker signs with; no other is ever accepted
_AUDIENCE: Final = "api"
# Clocks may differ by this much; the stock worker's tokens live for 30 s ([api_auth] jwt_leeway).
_LEEWAY_S: Final = 30
_LONGEST_LIFE_S: Final = 60  # twice a worker's own; one that was made to live longer is not a worker's
_INNER_LIFE_S: Final = 60
# Everything that the stock worker puts into a header; "kid", "jku", "crit" and their like do not belong.
_HEADER_FIELDS: Final = frozenset({"alg", "typ"})
# Checked against for names that nobody has, so that they take as long as a wrong secret.
_NOBODYS_SECRETS: Final = (secrets.token_urlsafe(48),)


def _not_accepted(audited: str = "") -> Refusal:
    """One text for every forgery: which part was wrong is nobody's business outside."""
    return Refusal(403, "token_invalid", "the token was not accepted", audited=audited)


def claimed_worker(authorization: str | None) -> str:
    """Return the name that a request token claims, unproved, for looking up whose secret to check it with.

    :raises Refusal: there is no token, or it is none of an edge worker's
    """
    if not authorization:
        raise Refusal(401, "token_missing", "an edge request needs an Authorization header")
    try:
        header = jwt.get_unverified_header(authorization)
        claims: Any = jwt.decode(authorization, options={"verify_signature": False})
    except (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError):
        # PyJWT lets the built-in ones through for headers nested beyond the parser and the like.
        raise _not_accepted() from None
    if header.get("alg") != _ALGORITHM:
        raise _not_accepted("token_algorithm")
    if not header.keys() <= _HEADER_FIELDS:
        raise _not_accepted("token_header")
    worker = claims.get("iss")
    if not isinstance(worker, str):
        raise _not_accepted()
    if not is_worker_name(worker):
        raise Refusal(
            403, "token_invalid", "the token names no worker; set WORKER_NAME to a-z, 0-9 and dashes"
        )
    return worker


def check_token(authorization: str, worker: Worker | None, method_path: str) -> str:
    """Make sure that ``worker`` made ``authorization`` for a call of ``method_path``.

    Returns the secret that it was made with, for :func:`check_still_good`.

    :param worker: who the token claims to be of; ``None``: nobody of that name is enrolled
    :raises Refusal: forged, expired, for another call, or the worker may not work any more
    """
    claims, used = None, ""
    for secret in (worker and worker.secrets) or _NOBODYS_SECRETS:
        try:
            claims = jwt.decode(
                authorization,
                secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                leeway=_LEEWAY_S,
                options={"require": ["iss", "aud", "iat", "exp", "method"], "verify_iss": False},
            )
            used = secret
            break
        except jwt.InvalidSignatureError:
            continue  # the other secret of a rotation
        except jwt.ExpiredSignatureError:
            raise Refusal(
                403, "token_expired", "the token has expired; check the edge host's clock"
            ) from None
        except jwt.ImmatureSignatureError:
            raise Refusal(
                403, "token_expired", "the token is from the future; check the edge host's clock"
            ) from None
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError):
            raise _not_accepted() from None
    if worker is None:
        raise _not_accepted("worker_unknown")
    if claims is None:
        raise _not_accepted("token_signature" if worker.secrets else "worker_not_joined")
    if claims["iss"] != worker.name or int(claims["exp"]) - int(claims["iat"]) > _LONGEST_LIFE_S:
        raise _not_accepted("token_claims")
    # The stock client signs the path before it is encoded, a server sees it decoded: both are the call.
    if claims["method"] != method_path and unquote(str(claims["method"])) != method_path:
        raise Refusal(403, "token_invalid", "the token was made for another call", audited="token_other_call")
    _check_enrolment(worker)
    return used


def check_still_good(secret: str, worker: Worker | None) -> Worker:
    """Make sure that who proved this secret some time ago may still work, and return it.

    :param worker: as it is enrolled now
    :raises Refusal: the secret is not good any more, or the enrolment has ended
    """
    if worker is None or secret not in worker.secrets:
        raise _not_accepted("worker_unknown" if worker is None else "token_signature")
    _check_enrolment(worker)
    return worker


def credential_name(text: str | None) -> str:
    """Return the name that a credential claims, unproved.

    :raises Refusal: there is none, or it is none
    """
    if not text:
        raise Refusal(401, "token_missing", "the uplink sent no credential of a worker")
    try:
        return Credential.parse(text).name
    except ValueError:
        raise _not_accepted() from None


def check_credential(text: str, worker: Worker | None) -> None:
    """Make sure that the credential is one of ``worker``'s now.

    :raises Refusal: it is not, or the worker may not work any more
    """
    given = Credential.parse(text).secret.encode()
    known = (worker and worker.secrets) or _NOBODYS_SECRETS
    # Every one is compared: which of two it was is not to be had from the time it takes either.
    matches = [hmac.compare_digest(given, secret.encode()) for secret in known]
    if worker is None or not any(matches):
        raise _not_accepted("worker_unknown" if worker is None else "credential_wrong")
    _check_enrolment(worker)


def _check_enrolment(worker: Worker) -> None:
    """For who has proved its secret: why it may not work is its own business."""
    state = worker.state(datetime.now(UTC))
    if state in ("revoked", "expired"):
        raise Refusal(
            403, f"worker_{state}", f"worker '{worker.name}' is {state}; ask the operator to enrol it again"
        )


def resign(method_path: str, internal_secret: str) -> str:
    """Return the token with which the edge API accepts one call of ``method_path``."""
    now = int(time.time())
    claims = {"aud": _AUDIENCE, "iat": now, "nbf": now, "exp": now + _INNER_LIFE_S, "method": method_path}
    return jwt.encode(claims, internal_secret, algorithm=_ALGORITHM)
