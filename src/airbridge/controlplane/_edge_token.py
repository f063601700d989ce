"""Checks the token of an edge request, and makes the one that the edge API behind the plugin accepts.

Worker side, unpatched: ``[api_auth] jwt_secret`` is the edge token and ``[api_auth] jwt_issuer`` the worker's
name, so every call of the stock edge worker carries ``iss`` under an HMAC that only token holders can make
(airflow/providers/edge3/cli/api_client.py, ``jwt_generator``). Control-plane side: the edge API verifies with
a secret that never leaves this process.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from urllib.parse import unquote

import jwt

__all__ = ["EdgeIdentity", "EdgeTokens", "Refusal"]

_ALGORITHM = "HS512"  # what the stock edge worker signs with; no other is ever accepted
_AUDIENCE = "api"
# Clocks may differ by this much; the stock worker's tokens live for 30 s ([api_auth] jwt_leeway).
_LEEWAY_S = 30
_LONGEST_LIFE_S = 600  # a token that was made to live longer is not one of a worker's
_INNER_LIFE_S = 60
_WORKER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class EdgeIdentity:
    """Who sent a request, as its token proves."""

    worker: str


class Refusal(Exception):
    """A request that is not let through; ``reason`` is a stable code, the message is for a person."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class EdgeTokens:
    """Verifies the tokens of edge workers and signs for the edge API.

    Args:
        edge_token: what edge hosts hold.
        internal_secret: ``[api_auth] jwt_secret`` of this process.
    """

    def __init__(self, edge_token: str, internal_secret: str) -> None:
        self._edge_token = edge_token
        self._internal_secret = internal_secret

    def identify(self, authorization: str | None, method_path: str) -> EdgeIdentity:
        """Return who signed ``authorization`` for a call of ``method_path``.

        Raises:
            Refusal: the token is missing, forged, expired, for another call, or names no worker.
        """
        if not authorization:
            raise Refusal(401, "token_missing", "an edge request needs an Authorization header")
        try:
            claims = jwt.decode(
                authorization,
                self._edge_token,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                leeway=_LEEWAY_S,
                options={"require": ["iss", "aud", "iat", "exp", "method"], "verify_iss": False},
            )
        except jwt.ExpiredSignatureError:
            raise Refusal(
                403, "token_expired", "the token has expired; check the edge host's clock"
            ) from None
        except jwt.ImmatureSignatureError:
            raise Refusal(
                403, "token_expired", "the token is from the future; check the edge host's clock"
            ) from None
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError):
            # One text for every forgery: which part was wrong is nobody's business outside. PyJWT lets the
            # built-in ones through for claims of a wrong type and for headers nested beyond the parser.
            raise Refusal(403, "token_invalid", "the token was not accepted") from None
        worker = claims["iss"]
        if not isinstance(worker, str) or not _WORKER_NAME.fullmatch(worker):
            raise Refusal(
                403, "token_invalid", "the token names no worker; set WORKER_NAME to a-z, 0-9 and dashes"
            )
        if int(claims["exp"]) - int(claims["iat"]) > _LONGEST_LIFE_S:
            raise Refusal(403, "token_invalid", "the token was not accepted")
        # The stock client signs the path before it is encoded, a server sees it decoded: both are the call.
        if claims["method"] != method_path and unquote(str(claims["method"])) != method_path:
            raise Refusal(403, "token_invalid", "the token was made for another call")
        return EdgeIdentity(worker)

    def resign(self, method_path: str) -> str:
        """Return the token with which the edge API accepts one call of ``method_path``."""
        now = int(time.time())
        claims = {"aud": _AUDIENCE, "iat": now, "nbf": now, "exp": now + _INNER_LIFE_S, "method": method_path}
        return jwt.encode(claims, self._internal_secret, algorithm=_ALGORITHM)
