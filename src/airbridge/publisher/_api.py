"""Ask the control plane what it has parsed and what its edge workers show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from airbridge.errors import RefusedError, SettingsError, UnreachableError
from airbridge.sync.store import TREES, is_tree_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from airbridge.publisher._settings import Settings

__all__ = ["ControlPlane", "ImportFault", "ParsedDag", "Worker"]

_SECONDS: Final = 10.0
_PAGE: Final = 100  # the API's own limit
_ATTEMPTS: Final = 3
_FAULTY_FILE: Final = re.compile(r"(?:/.*/(?P<tree>[0-9a-f]{64})/)?(?P<file>[^/].*)")
"""As the DAG processor saw it: below the tree that it parsed, or relative to it."""
_FIX: Final = "correct AIRBRIDGE_API_URL, or look at the api-server with 'make status'"
_SIGN_IN: Final = "correct AIRBRIDGE_API_USER and AIRBRIDGE_API_PASSWORD, or AIRBRIDGE_API_TOKEN"


@dataclass(frozen=True, slots=True)
class ParsedDag:
    """A DAG as the DAG processor stored it last; ``tree`` is the one that its file was read from."""

    dag_id: str
    tree: str
    file: str
    """Below the tree."""
    parsed_at: str


@dataclass(frozen=True, slots=True)
class ImportFault:
    """A file that could not be imported; ``file`` is below ``tree``, which is empty when it is not told."""

    file: str
    tree: str
    message: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """An edge worker; ``tree`` is empty when it does not say."""

    name: str
    state: str
    live: bool
    tree: str
    age_s: float | None


def _tree_of(row: dict[str, Any]) -> str:
    """Return the tree that a DAG of the REST API was parsed from.

    ``fileloc`` names it: the bundle shows each tree under its own path. ``bundle_version`` is what the DAG
    processor saw when it *stored* the DAG, which may be the next tree already (``bundle_version`` in
    airflow/dag_processing/manager.py, ``_collect_results``).
    """
    parts = str(row.get("fileloc") or "").split("/")
    if TREES in parts[:-1] and is_tree_hash(name := parts[parts.index(TREES) + 1]):
        return name
    return str(row.get("bundle_version") or "")


class ControlPlane:
    """The REST API of the control plane, and AirBridge's own beside it."""

    def __init__(self, settings: Settings) -> None:
        if not settings.airbridge_api_url:
            raise SettingsError("AIRBRIDGE_API_URL is empty", fix="set it to the address of the web UI")
        self._settings = settings
        self._client = httpx.Client(
            base_url=settings.airbridge_api_url, timeout=_SECONDS, follow_redirects=False
        )
        self._token = settings.airbridge_api_token.get_secret_value()
        self._given = bool(self._token)

    def __enter__(self) -> ControlPlane:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._client.close()

    def dags(self, package: str) -> dict[str, ParsedDag]:
        """Return the DAGs that are parsed now and whose id begins with the package's name."""
        return {
            row["dag_id"]: ParsedDag(
                row["dag_id"],
                _tree_of(row),
                row.get("relative_fileloc") or "",
                row.get("last_parsed_time") or "",
            )
            for row in self._rows("/api/v2/dags", "dags", {"dag_id_pattern": f"{package}_"})
            if row["dag_id"].startswith(f"{package}_")
        }

    def import_errors(self, package: str) -> list[ImportFault]:
        """Return the files of the package that could not be imported when they were parsed last."""
        faults = []
        for row in self._rows("/api/v2/importErrors", "import_errors", {}):
            found = _FAULTY_FILE.fullmatch(str(row["filename"]))
            if found is not None and found["file"].startswith(f"{package}/"):
                text = str(row["stack_trace"]).strip()
                last = text.splitlines()[-1] if text else "unknown"
                faults.append(
                    ImportFault(
                        found["file"], found["tree"] or "", last, datetime.fromisoformat(row["timestamp"])
                    )
                )
        return faults

    def workers(self) -> list[Worker]:
        """Return all edge workers that have registered."""
        return [
            Worker(
                name=str(row["name"]),
                state=str(row["state"]),
                live=bool(row["live"]),
                tree=str(row.get("dag_tree") or ""),
                age_s=row.get("age_s"),
            )
            for row in self._get("/airbridge/v1/workers", {})["workers"]
        ]

    def _rows(self, path: str, name: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._get(path, {**query, "limit": str(_PAGE), "offset": str(offset)})
            rows: list[dict[str, Any]] = page[name]
            yield from rows
            offset += len(rows)
            if not rows or offset >= int(page["total_entries"]):
                return

    def _get(self, path: str, query: dict[str, str]) -> Any:
        if not self._token:
            self._sign_in()
        answer = self._send("GET", path, params=query)
        if answer.status_code == httpx.codes.UNAUTHORIZED and not self._given:
            self._sign_in()  # the token has expired: a wait may outlive it
            answer = self._send("GET", path, params=query)
        return self._json(answer, path)

    def _sign_in(self) -> None:
        settings = self._settings
        password = settings.password()
        if not password:
            raise SettingsError(
                "there is no password for the control plane's API",
                fix="set AIRBRIDGE_API_PASSWORD (make password prints it), "
                "AIRBRIDGE_API_PASSWORD_FILE or AIRBRIDGE_API_TOKEN",
            )
        self._token = ""
        answer = self._send(
            "POST", "/auth/token", json={"username": settings.airbridge_api_user, "password": password}
        )
        self._token = str(self._json(answer, "/auth/token")["access_token"])

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(httpx.TransportError),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_exponential(multiplier=0.2, max=2),
                reraise=True,
            ):
                with attempt:
                    return self._client.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            raise UnreachableError(
                f"AIRBRIDGE_API_URL={self._settings.airbridge_api_url} cannot be reached: "
                f"{str(error) or type(error).__name__}",
                fix=_FIX,
            ) from None
        raise AssertionError("the loop above returns or raises")

    def _json(self, answer: httpx.Response, path: str) -> Any:
        where = f"{self._settings.airbridge_api_url}{path}"
        status = answer.status_code
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise RefusedError(f"{where} answered {status}: not signed in, or not allowed", fix=_SIGN_IN)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UnreachableError(f"{where} is failing: {status}", fix="wait, or look at 'make logs'")
        try:
            if not answer.is_success:
                raise ValueError(status)
            return answer.json()
        except ValueError:
            raise RefusedError(
                f"{where} answered {status}, and not what AirBridge's control plane answers", fix=_FIX
            ) from None
