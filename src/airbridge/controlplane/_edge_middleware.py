"""ASGI middleware before Airflow's api-server: the only way in for an edge worker.

Everything below ``/edge_worker/`` and ``/airbridge/``, and of ``/execution/`` what comes through the edge
door, is refused unless a worker proves itself with its own secret and may do what it asks (the rules are in
``_edge_rules``, ``_execution_rules`` and ``_s3_rules``). What passes to the edge API is signed anew for it,
so that it accepts nothing that came around this check. Some paths are special: a join token is all that
``join`` takes, ``s3-auth`` is the gateway's question about a request to S3, and two are for people: never
served to the edge door.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

import airbridge
from airbridge.controlplane._correlation import Exchange
from airbridge.controlplane._edge_rules import EdgeRules, asks_database, is_fetch, needs_body
from airbridge.controlplane._edge_token import (
    check_credential,
    check_token,
    claimed_worker,
    credential_name,
    resign,
)
from airbridge.controlplane._execution_rules import ExecutionRules, task_instance_of
from airbridge.controlplane._fetch import FetchDesk
from airbridge.controlplane._refusal import Refusal
from airbridge.controlplane._roster import Roster
from airbridge.controlplane._s3_rules import S3Layout, S3Rules
from airbridge.credential import JoinToken, checked_proof
from airbridge.errors import IntegrityError, UnreachableError
from airbridge.identity.store import JoinRefusedError

if TYPE_CHECKING:
    from airbridge.controlplane._audit import Audit
    from airbridge.controlplane._correlation import AccessLog
    from airbridge.identity.jobs import Job, Jobs
    from airbridge.identity.model import Worker
    from airbridge.identity.store import WorkerStore

__all__ = ["EdgeGuard", "EdgeMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_Result = TypeVar("_Result")

_EDGE_API: Final = "/edge_worker/v1/"
_OWN_API: Final = "/airbridge/v1/"
_EXECUTION_API: Final = "/execution/"
_OURS: Final = ("/edge_worker", "/airbridge")
_FOR_PEOPLE: Final = frozenset({"/airbridge/v1/workers", "/airbridge/v1/metrics"})
_JOIN: Final = "/airbridge/v1/join"
_S3_AUTH: Final = "/airbridge/v1/s3-auth"
_DOOR: Final = b"x-airbridge-door"  # set by the gateway on whatever comes through the edge door
_CREDENTIAL: Final = b"x-airbridge-token"  # set by the uplink, for clients that sign nothing
# Our own calls; each that names a worker is the named one's.
_OWN_CALLS: Final = {
    "GET": re.compile(r"version|(?:workers|enrolment)/(?P<name>[^/]+)"),
    "POST": re.compile("echo"),
}
_NO_NAMES: Final = ("", ".", "..")
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
# What a check reads of a body: registrations, queues and join tokens are small.
_LONGEST_BODY: Final = 64 * 1024
# Connections to the database that checks may hold at once; the pool keeps as many.
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class EdgeGuard:
    """What requests are checked with."""

    store: WorkerStore
    jobs: Jobs
    internal_secret: str = field(repr=False)
    """``[api_auth] jwt_secret`` of this process, which the edge API behind verifies with."""
    layout: S3Layout


class EdgeMiddleware:
    """Authenticates and authorizes the requests of edge hosts; every other request passes untouched.

    Args:
        app: the application behind.
        guard: how requests are checked; ``None`` refuses every edge request, which is what a control plane
            without its secrets must do.
        audit: where refusals are written down.
        accesses: where all requests are written down.
    """

    def __init__(
        self, app: App, guard: EdgeGuard | None, audit: Audit, accesses: AccessLog | None = None
    ) -> None:
        self._app = app
        self._guard = guard
        self._audit = audit
        self._accesses = accesses
        self._limiter: anyio.CapacityLimiter | None = None
        if guard:
            self._roster = Roster(guard.store)
            self._edge_rules = EdgeRules(guard.jobs)
            self._execution_rules = ExecutionRules(guard.jobs)
            self._s3_rules = S3Rules(guard.layout, self._edge_rules)
            self._fetches = FetchDesk(guard.jobs, self._in_thread)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = _route_path(scope)
        through_the_edge_door = any(name == _DOOR for name, _ in scope["headers"])
        inside = not through_the_edge_door and path.startswith(_EXECUTION_API)
        ours = path.startswith(_OURS) and not _is_for_people(scope, path)
        if not (through_the_edge_door or ours or inside):
            await self._app(scope, receive, send)  # which authenticates by itself
            return
        request = self._request(scope, path, receive, send)
        try:
            if inside:
                await self._pass_by(request)
            else:
                await self._serve(request, request.exchange.send, through_the_edge_door=through_the_edge_door)
        except Refusal as refusal:
            await self._refuse(request, refusal, send)
        except (UnreachableError, IntegrityError) as error:
            unready = Refusal(503, "not_ready", "the control plane cannot look up who is enrolled just now")
            await self._refuse(request, unready, send, detail=str(error))
        finally:
            request.exchange.end()

    def _request(self, scope: Scope, path: str, receive: Receive, send: Send) -> _Request:
        exchange = Exchange(send, f"{scope.get('method', '')} {path}", self._accesses)
        return _Request(scope, path, receive, exchange)

    async def _pass_by(self, request: _Request) -> None:
        """Hand on the call of a task on the control plane's own network, which is Airflow's to verify.

        Not that of a task on an edge host: it comes through the edge door, or its token was stolen.
        """
        try:
            task_instance = task_instance_of(request.only_header(b"authorization") or "")
        except Refusal:
            pass  # Airflow refuses it by itself
        else:
            request.claimed = str(task_instance)
            guard = self._guard
            if guard and await self._in_thread(lambda: guard.jobs.task(task_instance)) is not None:
                raise Refusal(403, "task_not_here", "a task of an edge host calls through its uplink")
            request.exchange.is_about(request.claimed)
        await self._app(request.scope, request.receive, request.exchange.send)

    async def _serve(self, request: _Request, send: Send, *, through_the_edge_door: bool) -> None:
        path = request.path
        known = (_EDGE_API, _OWN_API, _EXECUTION_API)
        if request.scope["type"] != "http" or not path.startswith(known) or path in _FOR_PEOPLE:
            # The edge provider's UI pages and API documentation are no business of a worker.
            raise _nothing_here()
        if self._guard is None:
            raise Refusal(503, "not_ready", "the control plane has no secrets yet; restart the api-server")
        if any(segment in _NO_NAMES for segment in path[1:].split("/")):
            # No call has such a segment; a router that tidies paths up would make another call of it.
            raise _nothing_here()
        if path == _JOIN:
            await self._join(request, send)
        elif path == _S3_AUTH:
            if not through_the_edge_door:
                raise _nothing_here()
            await self._answer_gateway(request, send)
        elif path.startswith(_EXECUTION_API):
            await self._app(await self._admit_task(request), request.receive, send)
        else:
            await self._serve_worker(request, send)

    # --- calls that the worker signs --------------------------------------------------------------

    async def _serve_worker(self, request: _Request, send: Send) -> None:
        assert self._guard  # noqa: S101 - _serve() looked
        prefix = _EDGE_API if request.path.startswith(_EDGE_API) else _OWN_API
        call = request.path.removeprefix(prefix)
        authorization = request.only_header(b"authorization")
        name = claimed_worker(authorization)
        worker = await self._find(name)
        check_token(authorization or "", worker, call)
        worker = await self._proved(request, worker)
        if prefix == _OWN_API:
            _check_own_call(worker, request.verb, call)
        else:
            body = await request.body() if needs_body(request.verb, call) else b""
            if asks_database(request.verb, call):
                request.is_about(
                    await self._in_thread(lambda: self._edge_rules.check(worker, request.verb, call, body))
                )
            else:
                self._edge_rules.check(worker, request.verb, call, body)
        inner = request.inner((b"authorization", resign(call, self._guard.internal_secret).encode()))
        inner["airbridge.worker"] = worker
        if prefix == _EDGE_API and is_fetch(request.verb, call):
            await self._fetches.serve(
                worker,
                body,
                lambda body, keep: self._app(*request.with_body(inner, body), keep),
                request.exchange,
            )
        else:
            await self._app(inner, request.receive, send)

    # --- calls that the uplink vouches for ----------------------------------------------------------

    async def _admit_task(self, request: _Request) -> Scope:
        worker = await self._vouched(request)
        task_instance = task_instance_of(request.only_header(b"authorization") or "")
        request.claimed = str(task_instance)
        call = request.path.removeprefix(_EXECUTION_API)
        query = request.scope.get("query_string", b"").decode("latin-1")
        await self._in_thread(
            lambda: self._execution_rules.check(worker, request.verb, call, query, task_instance)
        )
        request.exchange.is_about(str(task_instance))
        return request.inner()

    async def _answer_gateway(self, request: _Request, send: Send) -> None:
        """Say 200 when the request to S3 that the gateway holds may go on."""
        method = request.only_header(b"x-forwarded-method") or ""
        uri = request.only_header(b"x-forwarded-uri") or ""
        request.about = (method, uri)
        # Each edge host asks about once a second, and the gateway logs each request to S3 by itself.
        request.exchange.quiet = True
        try:
            worker = await self._vouched(request)
        except Refusal as refusal:
            # S3 knows no 401; clients of it treat "denied" as what it is.
            raise refusal.with_status(403) if refusal.status == 401 else refusal from None
        if self._s3_rules.needs_database(uri):
            request.is_about(await self._in_thread(lambda: self._s3_rules.check(worker, method, uri)))
        else:
            self._s3_rules.check(worker, method, uri)
        await _answer(send, 200, {"worker": worker.name})

    async def _vouched(self, request: _Request) -> Worker:
        text = request.only_header(_CREDENTIAL)
        worker = await self._find(credential_name(text))
        check_credential(text or "", worker)
        return await self._proved(request, worker)

    # --- joining ------------------------------------------------------------------------------------

    async def _join(self, request: _Request, send: Send) -> None:
        assert self._guard  # noqa: S101 - _serve() looked
        if request.verb != "POST":
            raise _nothing_here()
        refusal = Refusal(403, "join_refused", "the join token was not accepted")
        _check_version(request)
        try:
            asked = json.loads(await request.body())
            token, proof = JoinToken.parse(asked["token"]), checked_proof(asked.get("proof", ""))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise refusal from None
        request.worker = token.name
        store = self._guard.store
        try:
            credential = await self._in_thread(lambda: store.join(token, request.client, proof))
        except JoinRefusedError as error:
            raise Refusal(refusal.status, refusal.reason, str(refusal), audited=error.reason) from None
        request.exchange.worker = token.name
        await _answer(send, 200, {"credential": credential.text})

    # --- shared -------------------------------------------------------------------------------------

    async def _find(self, name: str) -> Worker | None:
        fresh, worker = self._roster.remembered(name)
        return worker if fresh else await self._in_thread(lambda: self._roster.find(name))

    async def _proved(self, request: _Request, worker: Worker | None) -> Worker:
        assert worker  # noqa: S101 - nobody proves a secret of nobody
        request.worker = request.exchange.worker = worker.name
        _check_version(request)
        if self._roster.is_seen_stale(worker.name):
            await self._in_thread(lambda: self._roster.mark_seen(worker.name))
        return worker

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _refuse(self, request: _Request, refusal: Refusal, send: Send, detail: str = "") -> None:
        method, path = request.about or (request.verb, request.path)
        attempt = refusal.correlation or request.claimed
        self._audit.refused(
            refusal.audited,
            worker=request.worker,
            method=method,
            path=path,
            client=request.client,
            detail=detail or str(refusal),
            correlation_id=attempt,
        )
        if request.scope["type"] == "websocket":
            # Closed before it was accepted: the server answers 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        # Without the header: whose attempt it was is not for who was refused to know. A line only about who
        # is proved: strangers are in the record of refusals, and must not fill the log.
        proved = bool(request.exchange.worker)
        request.exchange.correlation, request.exchange.quiet = "", not proved
        await _answer(
            request.exchange.send, refusal.status, {"detail": str(refusal), "reason": refusal.reason}
        )
        request.exchange.correlation = attempt if proved else ""


class _Request:
    """One request: what it says, and who sent it once that is proved."""

    def __init__(self, scope: Scope, path: str, receive: Receive, exchange: Exchange) -> None:
        self.scope = scope
        self.path = path
        self.verb: str = scope.get("method", "")
        self.exchange = exchange
        self.worker = ""
        self.claimed = ""
        """The task instance that the token of a workload names, unproved."""
        self.about: tuple[str, str] | None = None
        """Method and URI of the request that this one is a question about."""
        self._receive = receive
        self._read: list[Message] = []

    @property
    def client(self) -> str:
        """Address that the gateway saw, or that of who came around it."""
        forwarded = [value for name, value in self.scope["headers"] if name == b"x-forwarded-for"]
        peer = str((self.scope.get("client") or ("?",))[0])
        return forwarded[-1].decode("latin-1").rpartition(",")[2].strip()[:64] if forwarded else peer

    def only_header(self, name: bytes) -> str | None:
        """Return the value of a header that may be given once.

        :raises Refusal: it is given several times
        """
        values = [value for known, value in self.scope["headers"] if known == name]
        if len(values) > 1:
            title = name.decode().title()
            raise Refusal(400, "token_invalid", f"an edge request carries one {title} header, not several")
        return values[0].decode("latin-1") if values else None

    def inner(self, *headers: tuple[bytes, bytes]) -> Scope:
        """Return a scope for the application behind: a copy, because mounts behind write into it."""
        dropped = {_CREDENTIAL, *(name for name, _ in headers)}
        kept = [(name, value) for name, value in self.scope["headers"] if name not in dropped]
        return {**self.scope, "headers": [*kept, *headers]}

    def is_about(self, job: Job | None) -> None:
        """Note the attempt that the request is about, now that it may be."""
        if job is not None and job.task_instance is not None:
            self.exchange.is_about(str(job.task_instance))

    def with_body(self, inner: Scope, body: bytes) -> tuple[Scope, Receive]:
        """Return a scope for the application behind with another body, and where it reads that."""
        kept = [(name, value) for name, value in inner["headers"] if name != b"content-length"]
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await self._receive()

        return {**inner, "headers": [*kept, (b"content-length", str(len(body)).encode())]}, receive

    async def body(self) -> bytes:
        """Read the whole body; the application behind reads it again.

        :raises Refusal: it is too long
        """
        body = b""
        more = True
        while more:
            message = await self._receive()
            self._read.append(message)
            body += message.get("body", b"")
            more = message["type"] == "http.request" and message.get("more_body", False)
            if len(body) > _LONGEST_BODY:
                raise Refusal(413, "body_too_long", f"this call takes {_LONGEST_BODY} bytes at most")
        return body

    async def receive(self) -> Message:
        """Return what was read already, then what comes."""
        return self._read.pop(0) if self._read else await self._receive()


def _is_for_people(scope: Scope, path: str) -> bool:
    return path in _FOR_PEOPLE and scope["type"] == "http"


def _nothing_here() -> Refusal:
    return Refusal(404, "unknown_path", "there is nothing here")


def _route_path(scope: Scope) -> str:
    """Return the path that the routers behind look at: without the root path, as Starlette takes it off."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _check_own_call(worker: Worker, verb: str, call: str) -> None:
    rule = _OWN_CALLS.get(verb)
    match = rule.fullmatch(call) if rule else None
    if not match:
        raise _nothing_here()
    if match.groupdict().get("name") not in (None, worker.name):
        raise Refusal(403, "name_mismatch", f"the token is of worker '{worker.name}', the path names another")


def _check_version(request: _Request) -> None:
    """Refuse an edge host of another AirBridge (D4). A stock worker without our uplink sends no version."""
    for name, value in request.scope["headers"]:
        if name == b"x-airbridge-version" and value.decode("latin-1") != airbridge.__version__:
            theirs = value.decode("latin-1")[:32]
            raise Refusal(
                400,
                "version_mismatch",
                f"this edge host runs AirBridge {theirs}, the control plane {airbridge.__version__}; "
                "build the edge images from the control plane's release (make build-edge-worker)",
            )


async def _answer(send: Send, status: int, body: dict[str, str]) -> None:
    payload = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
