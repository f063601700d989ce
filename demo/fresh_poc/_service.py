"""What all five services share: routes, run ids, idempotence, failure on request."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ._errors import ServiceError
from ._peer import fetch_result
from ._store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._settings import Settings

__all__ = ["Answer", "Request", "Service"]

# Airflow's own limit of a run id.
_RUN_ID_LENGTH = 250
_MAX_FAIL_TIMES = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One call: the run it belongs to and the query's other parameters."""

    run_id: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of_json(cls, body: Mapping[str, Any], status: int = 200) -> Answer:
        """Encode a JSON object, with its keys in a fixed order."""
        return cls(status, json.dumps(body, sort_keys=True).encode() + b"\n")


class Service:
    """One step of the pipeline. A subclass names itself and computes a result; the rest is here."""

    name: ClassVar[str]
    #: The path that does the work.
    action: ClassVar[str]
    #: Further tables in the service's SQLite file.
    schema: ClassVar[str] = ""

    def __init__(self, settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self.store = Store(settings.data_dir / f"{self.name}.sqlite", self.schema)

    def compute(self, request: Request) -> dict[str, Any]:
        """Do the work of one run and return its full result; the same input gives the same result."""
        raise NotImplementedError

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the few numbers of a result that the caller of the action gets."""
        raise NotImplementedError

    def check_repeat(self, request: Request, result: Mapping[str, Any]) -> None:
        """Raise ServiceError 409 when a run's second call asks for something else than its first."""

    def keep(self, run_id: str, result: dict[str, Any]) -> None:
        """Store a result."""
        self.store.put(run_id, result)

    def result(self, run_id: str) -> dict[str, Any]:
        """Return the stored result of a run; ServiceError 404 when there is none."""
        found = self.store.get(run_id)
        if found is None:
            raise ServiceError(404, f"{self.name} has no result of run {run_id}")
        return found

    def from_peer(self, peer: str, run_id: str) -> dict[str, Any]:
        """Return what another service found out about a run."""
        return fetch_result(peer, self._settings.peers[peer], run_id)

    def answer(self, path: str, params: Mapping[str, str]) -> Answer:
        """Answer one call; ServiceError for anything but 2xx."""
        if path == "/healthz":
            return self._health()
        if path not in self.paths:
            raise ServiceError(404, f"no such path; {self.name} has {', '.join(self.paths)}")
        return self.route(path, Request(_run_id(params), params))

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path of this service."""
        return ("/healthz", self.action, "/result")

    def route(self, path: str, request: Request) -> Answer:
        """Answer a call that belongs to a run."""
        if path == self.action:
            return Answer.of_json(self._act(request))
        return Answer.of_json(self.result(request.run_id))

    def _act(self, request: Request) -> dict[str, Any]:
        self._fail_if_asked(request)
        if self.store.get(request.run_id) is None:
            self.keep(request.run_id, self.compute(request))
        # Read back: of two calls at the same time one was first, and both give its answer.
        found = self.result(request.run_id)
        self.check_repeat(request, found)
        return {"service": self.name, "run_id": request.run_id, **self.summary(found)}

    def _fail_if_asked(self, request: Request) -> None:
        if request.params.get("fail", "0") not in {"0", "1"}:
            raise ServiceError(400, "fail is 0 or 1")
        if request.params.get("fail", "0") == "0":
            return
        text = request.params.get("fail_times", "0")
        if not (text.isascii() and text.isdigit() and int(text) <= _MAX_FAIL_TIMES):
            raise ServiceError(400, f"fail_times is a number from 0 (always) to {_MAX_FAIL_TIMES}")
        limit = int(text)
        count = self.store.count_failure(request.run_id)
        if limit == 0 or count <= limit:
            raise ServiceError(
                500, f"{self.name} fails because it was asked to (failure {count} of {limit or 'every call'})"
            )

    def _health(self) -> Answer:
        try:
            self.store.check()
        except (OSError, sqlite3.Error) as error:
            raise ServiceError(503, f"{self.name} cannot write its data: {error}") from error
        return Answer.of_json({"service": self.name, "status": "ok"})


def _run_id(params: Mapping[str, str]) -> str:
    # A person with curl need not invent one.
    run_id = params.get("run_id", "manual")
    if not run_id or len(run_id) > _RUN_ID_LENGTH or not run_id.isprintable():
        raise ServiceError(400, f"run_id is 1 to {_RUN_ID_LENGTH} printable characters")
    return run_id
