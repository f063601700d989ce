"""Tokens as the stock edge worker makes them, who is enrolled, and a way to send any ASGI scope."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
from prometheus_client import CollectorRegistry

from airbridge.audit import Audit
from airbridge.controlplane._dispatch import Dispatch
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware
from airbridge.credential import Credential, JoinToken
from airbridge.identity.database import Database
from airbridge.identity.jobs import HandedOut
from airbridge.identity.model import Allowance, HeldCertificate, Worker
from airbridge.identity.store import JoinRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from airbridge.controlplane._client_certificates import ClientCertificates
    from airbridge.identity.jobs import Job, JobKey, RunningTask
    from airbridge.identity.model import IssuedCertificate

__all__ = [
    "INTERNAL_SECRET",
    "NEIGHBOUR",
    "OTHER_SECRET",
    "SECRET",
    "WORKER",
    "Answer",
    "Enrolments",
    "Ledger",
    "LedgerTurn",
    "ask",
    "claims",
    "door_before",
    "no_dispatch",
    "token",
    "worker",
]

SECRET = "s" * 64
OTHER_SECRET = "o" * 64
INTERNAL_SECRET = "internal-" + "i" * 64
WORKER = "north-1"
NEIGHBOUR = "south-2"


def worker(name: str = WORKER, *secrets: str, **changes: Any) -> Worker:
    """An enrolled worker; one secret unless others are given."""
    allowance = Allowance(("default", "gpu"), 4, ("warehouse",), ("threshold",))
    made = Worker(name, allowance, datetime.now(UTC), secrets=secrets or (SECRET,))
    return replace(made, **changes)


class Enrolments:
    """Enrolled workers in memory, in the place of the database; the real one has tests of its own."""

    def __init__(self, *workers: Worker) -> None:
        self.workers = {one.name: one for one in workers}
        self.asked: list[str] = []
        self.seen: list[str] = []
        self.join_tokens: set[str] = set()
        self.listed = 0

    def find(self, name: str) -> Worker | None:
        """See :meth:`airbridge.identity.store.WorkerStore.find`."""
        self.asked.append(name)
        return self.workers.get(name)

    def revision(self) -> int:
        """See :meth:`airbridge.identity.store.WorkerStore.revision`."""
        return hash(tuple(self.workers.items()))

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """See :meth:`airbridge.identity.store.WorkerStore.mark_seen`."""
        self.seen += seen

    def names(self) -> frozenset[str]:
        """See :meth:`airbridge.identity.store.WorkerStore.names`."""
        self.listed += 1
        return frozenset(self.workers)

    def join(
        self, token: JoinToken, client: str, proof: str = "", issued: IssuedCertificate | None = None
    ) -> Credential:
        """See :meth:`airbridge.identity.store.WorkerStore.join`."""
        if token.text not in self.join_tokens:
            raise JoinRefusedError("join_token_unknown")
        self.join_tokens.remove(token.text)
        credential = Credential.new(token.name)
        self.workers[token.name] = worker(token.name, credential.secret)
        if issued is not None:
            self.add_certificate(issued)
        return credential

    def add_certificate(self, issued: IssuedCertificate) -> None:
        """See :meth:`airbridge.identity.store.WorkerStore.add_certificate`."""
        before = self.workers[issued.name]
        held = (HeldCertificate(issued.serial, issued.not_after), *before.certificates)
        self.workers[issued.name] = replace(before, certificates=held)


class LedgerTurn:
    """A worker's turn to fetch; the real one has tests of its own."""

    def __init__(self, ledger: Ledger, worker: str) -> None:
        self._ledger = ledger
        self._worker = worker
        self.held = ledger.held
        ledger.open_turns += 1

    def end(self, handed: JobKey | None = None, fetch_id: str | None = None) -> None:
        """See :meth:`airbridge.identity.jobs.FetchTurn.end`."""
        self._ledger.open_turns -= 1
        if handed is not None:
            self._ledger.handed.add((handed, self._worker))
            if fetch_id is not None:
                self._ledger.under[fetch_id] = HandedOut(handed, "{}", 1)


@dataclass(slots=True)
class Ledger:
    """Jobs in memory, in the place of the database."""

    jobs: dict[JobKey, Job] = field(default_factory=dict)
    tasks: dict[uuid.UUID, RunningTask] = field(default_factory=dict)
    handed: set[tuple[JobKey, str]] = field(default_factory=set)
    held: int = 0
    open_turns: int = 0
    under: dict[str, HandedOut] = field(default_factory=dict)
    pieces: set[tuple[JobKey, datetime]] = field(default_factory=set)

    def job(self, key: JobKey) -> Job | None:
        """See :meth:`airbridge.identity.jobs.Jobs.job`."""
        return self.jobs.get(key)

    def task(self, task_instance: uuid.UUID) -> RunningTask | None:
        """See :meth:`airbridge.identity.jobs.Jobs.task`."""
        return self.tasks.get(task_instance)

    def turn(self, worker: str) -> LedgerTurn:
        """See :meth:`airbridge.identity.jobs.Jobs.turn`."""
        return LedgerTurn(self, worker)

    def handed_out_under(self, fetch_id: str, worker: str) -> HandedOut | None:
        """See :meth:`airbridge.identity.jobs.Jobs.handed_out_under`."""
        handed = self.under.get(fetch_id)
        return handed if handed and (handed.key, worker) in self.handed else None

    def has_log_piece(self, key: JobKey, written_at: datetime) -> bool:
        """See :meth:`airbridge.identity.jobs.Jobs.has_log_piece`."""
        return (key, written_at) in self.pieces

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        """See :meth:`airbridge.identity.jobs.Jobs.was_handed_out`."""
        return (key, worker) in self.handed


def _no_database() -> Any:
    raise AssertionError("these tests claim no jobs")


def no_dispatch() -> Dispatch:
    """A dispatch that nobody may ask for jobs."""
    return Dispatch(Database(_no_database), count=lambda job: None)


def door_before(
    app: Callable[..., Awaitable[None]],
    enrolments: Enrolments,
    ledger: Ledger,
    audit: Audit | None = None,
    certificates: ClientCertificates | None = None,
) -> EdgeMiddleware:
    """The middleware before ``app``; nobody claims jobs through it."""
    guard = EdgeGuard(enrolments, ledger, INTERNAL_SECRET, no_dispatch())  # type: ignore[arg-type]
    if certificates is not None:
        guard = replace(guard, certificates=certificates)
    return EdgeMiddleware(app, guard, audit or Audit(CollectorRegistry()))


def claims(call: str, **changes: Any) -> dict[str, Any]:
    """Claims of a worker's token; a change to ``None`` leaves the claim out.

    As airflow/api_fastapi/auth/tokens.py, ``JWTGenerator.generate``, makes them for the edge worker.
    """
    now = int(time.time())
    made = {
        "jti": uuid.uuid4().hex,
        "iss": WORKER,
        "aud": "api",
        "nbf": now,
        "exp": now + 30,
        "iat": now,
        "method": call,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(call: str, *, secret: str = SECRET, algorithm: str = "HS512", **changes: Any) -> str:
    """A worker's token for one call."""
    return jwt.encode(claims(call, **changes), secret, algorithm=algorithm, headers={"alg": algorithm})


@dataclass(slots=True)
class Answer:
    """What an application sent."""

    messages: list[MutableMapping[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """HTTP status."""
        return int(self.messages[0]["status"])

    @property
    def json(self) -> dict[str, Any]:
        """Body, parsed."""
        body: dict[str, Any] = json.loads(b"".join(m.get("body", b"") for m in self.messages))
        return body


async def ask(
    app: Callable[..., Awaitable[None]],
    path: str,
    *authorizations: str,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes = b"",
    **scope: Any,
) -> Answer:
    """Send one request with exactly this path, as a server hands it on: decoded, not tidied up."""
    answer = Answer()
    # In two pieces, as a network may deliver it.
    pieces = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.request", "body": body[5:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return pieces.pop(0) if pieces else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.messages.append(message)

    whole = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("api-server", 8080),
        "client": ("10.0.0.9", 4711),
        "headers": [*headers, *((b"authorization", value.encode("latin-1")) for value in authorizations)],
        **scope,
    }
    await app(whole, receive, send)
    return answer
