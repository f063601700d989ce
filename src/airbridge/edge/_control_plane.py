"""The control plane as an edge host sees it: three questions and one message.

A *refusal* is an answer that waiting does not change (wrong token, other version, somebody else's
name). Everything else, a gateway that is up before the api-server included, is *unreachable*: it
passes by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

import airbridge
from airbridge.client_certificate import ClientCertificate
from airbridge.credential import Credential
from airbridge.edge._client_certificate import current_certificate
from airbridge.edge.token import API_PREFIX, request_headers
from airbridge.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from types import TracebackType

    from airbridge.credential import JoinToken
    from airbridge.edge.settings import EdgeSettings

__all__ = [
    "OFFLINE_STATES",
    "VERSION_HEADER",
    "VERSION_MISMATCH",
    "ControlPlane",
    "Joined",
    "Registration",
    "Versions",
    "local_versions",
    "refusal",
]

VERSION_HEADER: Final = "X-AirBridge-Version"
VERSION_MISMATCH: Final = "version_mismatch"

OFFLINE_STATES: Final = frozenset({"offline", "unknown", "offline maintenance"})
"""States in which the edge API lets the name be registered again (edge3: ``allowed_states_for_reuse``)."""

_EDGE_API: Final = "/edge_worker/v1/"
# Longer than the uplink goes on trying to connect (20 s), so that its reason arrives.
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)

# How the uplink's own answers begin when it cannot reach the control plane.
_UPLINK_SAYS: Final = "uplink: "

# Answers that say "not now": a proxy without its upstream, a server that starts or is told to slow down.
_PASSING: Final = frozenset({408, 425, 429})

_TOKEN_FIX: Final = (
    "give this host the credential that it is enrolled with "  # noqa: S105 - advice
    "(CONTROL_PLANE_TOKEN or CONTROL_PLANE_TOKEN_FILE); the operator makes a new one with "
    "airbridge edge rotate"
)
_VERSION_FIX: Final = "run the edge images of the control plane's release (AIRBRIDGE_VERSION)"
_REFUSAL_FIXES: Final = {
    "token_missing": "send edge traffic through the uplink of this release; a hop removes headers",
    "token_invalid": _TOKEN_FIX,
    "token_expired": "set this host's clock right (NTP); tokens live for seconds",
    "name_mismatch": "set WORKER_NAME to the name that the token was made for",
    "worker_revoked": "ask the operator of the control plane: airbridge edge enroll",
    "worker_expired": "ask the operator of the control plane: airbridge edge update --expires",
    "queue_not_allowed": "set WORKER_QUEUES to queues of the enrolment, or have it changed: "
    "airbridge edge update --queues",
    "concurrency_not_allowed": "lower WORKER_CONCURRENCY, or have the enrolment changed: "
    "airbridge edge update --concurrency",
    "certificate_missing": "ask the operator for a join token, and start this host with it: "
    "airbridge edge join-token NAME",
    "certificate_mismatch": "give this host its own state volume and its own certificate file",
    "certificate_ended": "ask the operator for a join token, and start this host with it: "
    "airbridge edge join-token NAME",
    "join_refused": "ask the operator for another join token: airbridge edge join-token NAME",
    VERSION_MISMATCH: _VERSION_FIX,
}


@dataclass(frozen=True, slots=True)
class Versions:
    """What must be equal on both sides."""

    airbridge: str
    airflow: str
    edge_provider: str

    def difference(self, other: Versions) -> str:
        """Return what differs, as ``name here X, there Y``; empty when nothing does."""
        pairs = (
            ("AirBridge", self.airbridge, other.airbridge),
            ("Airflow", self.airflow, other.airflow),
            ("edge provider", self.edge_provider, other.edge_provider),
        )
        return "; ".join(f"{name} here {here}, there {there}" for name, here, there in pairs if here != there)


@dataclass(frozen=True, slots=True)
class Registration:
    """What the control plane knows about this worker's name."""

    state: str
    last_update: str
    """Time of the last heartbeat as the control plane wrote it; only compared for equality."""
    age_s: float
    """Seconds since that heartbeat by the control plane's clock."""

    @property
    def free(self) -> bool:
        """Whether the edge API would let a worker register under this name now."""
        return self.state in OFFLINE_STATES


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join token was traded for."""

    credential: Credential
    certificate: ClientCertificate | None
    """``None``: the control plane issues none."""


def _installed(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return "not installed"


def local_versions() -> Versions:
    """Return the versions of this host without importing Airflow."""
    return Versions(
        airbridge=airbridge.__version__,
        airflow=_installed("apache-airflow"),
        edge_provider=_installed("apache-airflow-providers-edge3"),
    )


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def refusal(response: httpx.Response) -> tuple[str, str, str] | None:
    """Return ``(reason, detail, fix)`` of an AirBridge refusal, or None when the answer is none."""
    body = _body(response)
    reason = body.get("reason")
    if response.is_success or not isinstance(reason, str) or response.is_server_error:
        return None
    return reason, str(body.get("detail", "")), _REFUSAL_FIXES.get(reason, _TOKEN_FIX)


def _certificate(name: str, key: str, body: dict[str, Any]) -> ClientCertificate:
    """Return the certificate that an answer holds.

    :raises ValueError: it holds none
    """
    try:
        return ClientCertificate(
            name,
            str(body["serial"]),
            datetime.fromisoformat(body["not_before"]),
            datetime.fromisoformat(body["not_after"]),
            str(body["certificate"]),
            key,
        )
    except (KeyError, TypeError):
        raise ValueError("holds no certificate") from None


class ControlPlane:
    """Client of ``/airbridge/v1`` and of the worker's own registration, through the uplink.

    Proxy variables of the environment are not used: the uplink is a neighbour in the same network.
    """

    def __init__(self, settings: EdgeSettings, versions: Versions) -> None:
        self._settings = settings
        self._versions = versions
        self._http = httpx.Client(
            base_url=settings.uplink_url,
            timeout=_TIMEOUT,
            trust_env=False,
            headers={VERSION_HEADER: versions.airbridge},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def check_versions(self) -> None:
        """Make sure that the control plane takes this worker's token and runs its versions.

        :raises RefusedError: it does not
        :raises UnreachableError: it gave no answer
        """
        body = _body(self._ask("GET", API_PREFIX, "version"))
        try:
            there = Versions(body["airbridge"], body["airflow"], body["edge_provider"])
        except KeyError:
            raise self._no_control_plane() from None
        if difference := self._versions.difference(there):
            raise RefusedError(f"versions differ from the control plane's: {difference}", fix=_VERSION_FIX)

    def check_enrolment(self) -> None:
        """Make sure that this worker is enrolled for what its settings say.

        :raises RefusedError: it is not
        :raises UnreachableError: it gave no answer
        """
        settings = self._settings
        enrolment = _body(self._ask("GET", API_PREFIX, f"enrolment/{settings.worker_name}"))
        allowed = [str(queue) for queue in enrolment.get("queues") or []]
        if wrong := [queue for queue in settings.worker_queues if queue not in allowed]:
            raise RefusedError(
                f"WORKER_QUEUES names {','.join(wrong)}, but worker {settings.worker_name} is enrolled for "
                f"{','.join(allowed)}",
                fix=_REFUSAL_FIXES["queue_not_allowed"],
            )
        most = int(enrolment.get("concurrency") or 0)
        if settings.worker_concurrency > most:
            raise RefusedError(
                f"WORKER_CONCURRENCY is {settings.worker_concurrency}, but worker {settings.worker_name} is "
                f"enrolled for {most} tasks at once",
                fix=_REFUSAL_FIXES["concurrency_not_allowed"],
            )

    def join(self, token: JoinToken, proof: str, key: str, request: str) -> Joined:
        """Trade ``token`` for this worker's credential and certificate. The control plane takes it from one
        host only.

        :param proof: says that this host is the one that asked before
        :param key: PEM of the private key that stays here
        :param request: PEM of the certificate request for it
        :raises RefusedError: it does not take it
        :raises UnreachableError: it gave no answer
        """
        sent = {"token": token.text, "proof": proof, "request": request}
        body = _body(self._ask("POST", API_PREFIX, "join", json=sent, signed=False))
        try:
            credential = Credential.parse(str(body.get("credential")))
            certificate = _certificate(token.name, key, body) if "certificate" in body else None
        except ValueError:
            raise self._no_control_plane() from None
        return Joined(credential, certificate)

    def next_certificate(self, key: str, request: str) -> ClientCertificate:
        """Return a new client certificate for this worker; the one before stays good for some minutes.

        :param key: PEM of the private key that stays here
        :param request: PEM of the certificate request for it
        :raises RefusedError: the control plane does not take the credential, or the certificate shown
        :raises UnreachableError: it gave no answer
        """
        body = _body(self._ask("POST", API_PREFIX, "certificate", json={"request": request}))
        try:
            return _certificate(self._settings.worker_name, key, body)
        except ValueError:
            raise self._no_control_plane() from None

    def certificate_end(self, serial: str) -> datetime | None:
        """Return when this worker's certificate ends, by the control plane's record; ``None``: it has.

        :raises RefusedError: the control plane does not take the credential, or the certificate shown
        :raises UnreachableError: it gave no answer
        """
        body = _body(self._ask("GET", API_PREFIX, "certificate"))
        if "required" not in body:
            raise self._no_control_plane()
        try:
            return datetime.fromisoformat(str(body.get(f"ends_{serial}")))
        except ValueError:
            return None

    def _no_control_plane(self) -> UnreachableError:
        return UnreachableError(
            f"what answers at {self._settings.uplink_url} is not an AirBridge control plane",
            fix="check CONTROL_PLANE_URL",
        )

    def registration(self) -> Registration | None:
        """Return what is registered under this worker's name; None: nothing.

        :raises RefusedError: the control plane says no
        :raises UnreachableError: it gave no answer
        """
        response = self._ask("GET", API_PREFIX, f"workers/{self._settings.worker_name}", missing_ok=True)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        body = _body(response)
        age = body.get("age_s")
        return Registration(
            state=str(body.get("state", "")),
            last_update=str(body.get("last_update", "")),
            age_s=float("inf") if age is None else float(age),
        )

    def sign_off(self, state: str) -> None:
        """Report this worker's name as ``state``, an offline one, for a predecessor that cannot any more.

        The call that a stock worker makes when it quits.
        """
        body = {
            "state": state,
            "jobs_active": 0,
            "queues": list(self._settings.worker_queues),
            "sysinfo": {
                "airflow_version": self._versions.airflow,
                "edge_provider_version": self._versions.edge_provider,
            },
        }
        self._ask("PATCH", _EDGE_API, f"worker/{self._settings.worker_name}", json=body)

    def _ask(
        self,
        verb: str,
        prefix: str,
        method: str,
        *,
        json: object = None,
        missing_ok: bool = False,
        signed: bool = True,
    ) -> httpx.Response:
        settings = self._settings
        try:
            response = self._http.request(
                verb,
                prefix + method,
                json=json,
                headers=request_headers(settings.token, settings.worker_name, method) if signed else {},
            )
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"the uplink at {settings.uplink_url} does not answer ({error})",
                fix="start it: service uplink",
            ) from None
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"no answer from {settings.control_plane_url} ({type(error).__name__})", fix="run diag"
            ) from None
        status = response.status_code
        if response.is_success or (missing_ok and status == httpx.codes.NOT_FOUND):
            return response
        if refused := refusal(response):
            reason, detail, fix = refused
            if reason == "certificate_missing" and current_certificate(os.environ) is not None:
                raise UnreachableError(
                    "the uplink does not show this host's client certificate (yet)",
                    fix="if this stays, see the log of uplink",
                )
            raise RefusedError(
                f"the control plane refuses worker {settings.worker_name}: {detail} ({reason})", fix=fix
            )
        if response.is_server_error and response.text.startswith(_UPLINK_SAYS):
            reason = response.text.removeprefix(_UPLINK_SAYS).strip()
            setting = "CONTROL_PLANE_CA_FILE" if "x509" in reason or "tls:" in reason else "CONTROL_PLANE_URL"
            raise UnreachableError(
                f"CONTROL_PLANE_URL={settings.control_plane_url} cannot be reached: {reason}",
                fix=f"if this stays, correct {setting}; diag checks every part of the connection",
            )
        if status in _PASSING or response.is_server_error or response.is_redirect:
            raise UnreachableError(
                f"{settings.control_plane_url} is not ready (HTTP {status})", fix="run diag if this stays"
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RefusedError(
                f"the control plane refuses worker {settings.worker_name} (HTTP {status})", fix=_TOKEN_FIX
            )
        raise RefusedError(
            f"{settings.control_plane_url} answers HTTP {status} to {verb} {prefix}{method}",
            fix="check CONTROL_PLANE_URL, and that both sides run the same AirBridge release",
        )
