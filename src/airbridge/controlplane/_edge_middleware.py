"""ASGI middleware before Airflow's api-server: the only way in for an edge worker.

Everything below ``/edge_worker/`` and ``/airbridge/``, and of ``/execution/`` what comes through the edge
door, is refused unless a worker proves itself with its own secret and may do what it asks (the rules are in
``_edge_rules`` and ``_execution_rules``). What passes to the edge API is signed anew for it, so that it
accepts nothing that came around this check. Some paths are special: a join token is all that ``join`` takes,
``certificate`` is answered here (see ``_client_certificates``), and two are for people: never served to the
edge door.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import airbridge
from airbridge.controlplane._client_certificates import (
    CLIENT_NAME,
    CLIENT_SERIAL,
    ClientCertificates,
    described,
)
from airbridge.controlplane._correlation import Exchange
from airbridge.controlplane._deliveries import CHUNK_HEADER, FETCH_HEADER, Deliveries, checked_fetch_id
from airbridge.controlplane._dispatch import JobRequest
from airbridge.controlplane._edge_rules import (
    EdgeRules,
    asks_database,
    is_fetch,
    is_heartbeat,
    needs_body,
)
from airbridge.controlplane._edge_token import (
    check_credential,
    check_still_good,
    check_token,
    claimed_worker,
    credential_name,
    resign,
)
from airbridge.controlplane._execution_rules import ExecutionRules, task_instance_of
from airbridge.controlplane._fetch import FetchDesk
from airbridge.controlplane._garbage import freezing
from airbridge.controlplane._heartbeats import Heartbeat
from airbridge.controlplane._limits import Limits, LimitSettings
from airbridge.controlplane._lookup import Lookup
from airbridge.controlplane._places import Places
from airbridge.controlplane._refusal import Refusal
from airbridge.controlplane._shortcut import take_shortcut
from airbridge.credential import JoinToken, checked_proof
from airbridge.errors import IntegrityError, UnreachableError
from airbridge.identity.store import JoinRefusedError

if TYPE_CHECKING:
    from airbridge.audit import Audit
    from airbridge.controlplane._asgi import App, Message, Receive, Scope, Send
    from airbridge.controlplane._correlation import AccessLog
    from airbridge.controlplane._dispatch import Dispatch
    from airbridge.controlplane._heartbeats import Heartbeats
    from airbridge.dispatch.queue import Demand
    from airbridge.identity.jobs import Job, Jobs
    from airbridge.identity.model import Worker
    from airbridge.identity.store import WorkerStore

__all__ = ["EdgeGuard", "EdgeMiddleware"]

_EDGE_API: Final = "/edge_worker/v1/"
_OWN_API: Final = "/airbridge/v1/"
_EXECUTION_API: Final = "/execution/"
_OURS: Final = ("/edge_worker", "/airbridge")
_FOR_PEOPLE: Final = frozenset({"/airbridge/v1/workers", "/airbridge/v1/metrics"})
_JOIN: Final = "/airbridge/v1/join"
_CERTIFICATE: Final = "/airbridge/v1/certificate"
_DOOR: Final = b"x-airbridge-door"  # set by the gateway on whatever comes through the edge door
_CREDENTIAL: Final = b"x-airbridge-token"  # set by the uplink, for clients that sign nothing
# Our own calls; each that names a worker is the named one's.
_OWN_CALLS: Final = {
    "GET": re.compile(r"version|certificate|(?:workers|enrolment)/(?P<name>[^/]+)"),
    "POST": re.compile(r"echo|certificate|jobs/(?P<name>[^/]+)"),
}
_JOBS: Final = "jobs/"
# Answers to who has not proved to be a worker.
_UNPROVED: Final = (401, 403)
_NO_NAMES: Final = ("", ".", "..")
_OK: Final = 200
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
# Requests that are inside Airflow's application at once, of edge hosts and of tasks on the control plane.
# With what people may cause they are to be fewer than threads and connections together (see _places).
_EDGE_PLACES: Final = 40
_TASK_PLACES: Final = 16
# What a check reads of a body: registrations, queues and join tokens are small.
_LONGEST_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class EdgeGuard:
    """What requests are checked with."""

    store: WorkerStore
    jobs: Jobs
    internal_secret: str = field(repr=False)
    """``[api_auth] jwt_secret`` of this process, which the edge API behind verifies with."""
    dispatch: Dispatch
    certificates: ClientCertificates = field(default_factory=ClientCertificates)
    limits: LimitSettings = field(default_factory=LimitSettings)
    heartbeats: Heartbeats | None = None
    """Serves heartbeats together; ``None``: the edge API behind serves each."""


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
        self._inner = Places(app, _EDGE_PLACES)
        self._inner_for_tasks = Places(app, _TASK_PLACES)
        self._guard = guard
        self._audit = audit
        self._accesses = accesses
        if guard:
            self._lookup = Lookup(guard.store)
            self._limits = Limits(guard.limits)
            self._edge_rules = EdgeRules(guard.jobs)
            self._execution_rules = ExecutionRules(guard.jobs)
            self._deliveries = Deliveries(guard.jobs, self._lookup.in_thread)
            self._fetches = FetchDesk(guard.jobs, self._lookup.in_thread)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            # The start and the end of the process.
            take_shortcut(scope.get("app"), self, _is_edge)
            await self._app(scope, receive, freezing(send))
            return
        path = _route_path(scope)
        inside = not _is_edge(scope)
        if inside and not path.startswith(_EXECUTION_API):
            await self._app(scope, receive, send)  # which authenticates by itself
            return
        request = self._request(scope, path, receive, send)
        try:
            if inside:
                await self._pass_by(request)
                return
            try:
                await self._serve(request, request.exchange.send)
            finally:
                if request.in_turn:
                    self._limits.leave(request.worker)
        except Refusal as refusal:
            # An attempt to join is charged by itself.
            stranger = refusal.status in _UNPROVED and not request.proved and request.path != _JOIN
            if self._guard and stranger:
                refusal = self._limits.failed(request.client, refusal)
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
            if guard and await self._lookup.in_thread(lambda: guard.jobs.task(task_instance)) is not None:
                raise Refusal(403, "task_not_here", "a task of an edge host calls through its uplink")
            request.exchange.is_about(request.claimed)
        await self._inner_for_tasks(request.scope, request.receive, request.exchange.send)

    async def _serve(self, request: _Request, send: Send) -> None:
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
        elif path.startswith(_EXECUTION_API):
            await self._inner(await self._admit_task(request), request.receive, send)
        else:
            await self._serve_worker(request, send)

    # --- calls that the worker signs --------------------------------------------------------------

    async def _serve_worker(self, request: _Request, send: Send) -> None:
        assert self._guard  # noqa: S101 - _serve() looked
        prefix = _EDGE_API if request.path.startswith(_EDGE_API) else _OWN_API
        call = request.path.removeprefix(prefix)
        authorization = request.only_header(b"authorization")
        name = claimed_worker(authorization)
        worker = await self._lookup.find(name)
        secret = check_token(authorization or "", worker, call)
        worker = await self._proved(request, worker)
        if prefix == _OWN_API:
            _check_own_call(worker, request.verb, call)
            if request.path == _CERTIFICATE:
                await self._certify(request, worker, send)
                return
            if call.startswith(_JOBS):
                await self._dispatch_jobs(request, worker, secret, send)
                return
        else:
            body = await request.body() if needs_body(request.verb, call) else b""
            if asks_database(request.verb, call):
                job = await self._lookup.in_thread(
                    lambda: self._edge_rules.check(worker, request.verb, call, body)
                )
                request.is_about(job)
            else:
                self._edge_rules.check(worker, request.verb, call, body)
            if is_heartbeat(request.verb, call) and await self._beat(request, worker, send):
                return
        inner = request.inner((b"authorization", resign(call, self._guard.internal_secret).encode()))
        inner["airbridge.worker"] = worker
        if prefix == _EDGE_API and is_fetch(request.verb, call):
            await self._fetches.serve(
                worker,
                body,
                checked_fetch_id(request.only_header(FETCH_HEADER)),
                lambda body, keep: self._inner(*request.with_body(inner, body), keep),
                request.exchange,
            )
        elif prefix == _EDGE_API and await self._deliveries.has_piece(
            request.verb, call, request.only_header(CHUNK_HEADER)
        ):
            await _answer(send, 200, {})
        else:
            await self._inner(inner, request.receive, send)

    async def _beat(self, request: _Request, worker: Worker, send: Send) -> bool:
        """Serve a heartbeat together with those of others; returns whether it is answered."""
        assert self._guard  # noqa: S101 - _serve() looked
        if self._guard.heartbeats is None:
            return False
        answer = await self._guard.heartbeats.take(Heartbeat(worker.name, await request.body()))
        if answer is None:
            return False
        request.exchange.quiet = answer.status == _OK
        await _send_json(send, answer.status, answer.body)
        return True

    async def _dispatch_jobs(self, request: _Request, worker: Worker, secret: str, send: Send) -> None:
        """Hold the call until there is a job for the worker.

        :param secret: which the worker has proved
        """
        assert self._guard  # noqa: S101 - _serve() looked
        asked = JobRequest.parse(await request.body())
        demand = asked.demand(worker)
        if asked.restarted:
            await _answer(send, 200, {"jobs": [], "lost": await self._guard.dispatch.lost(demand)})
            return

        async def renew(changed: bool) -> Demand:
            find = self._lookup.find_anew if changed else self._lookup.find
            now = check_still_good(secret, await find(worker.name))
            self._check_certificate(request, now)
            return asked.demand(now)

        # While it waits it takes nobody's turn: the worker's other calls are served meanwhile.
        self._limits.leave(worker.name)
        request.in_turn = False
        jobs = await self._guard.dispatch.serve(demand, asked.wait, request.disconnected(), renew)
        if jobs:
            request.exchange.is_about_several(str(job["command"]["ti"]["id"]) for job in jobs)
        # What an idle fleet says is not logged: it would push everything else out of a log that is rotated.
        request.exchange.quiet = not jobs
        await _answer(send, 200, {"jobs": jobs})

    # --- calls that the uplink vouches for ----------------------------------------------------------

    async def _admit_task(self, request: _Request) -> Scope:
        worker = await self._vouched(request)
        task_instance = task_instance_of(request.only_header(b"authorization") or "")
        request.claimed = str(task_instance)
        call = request.path.removeprefix(_EXECUTION_API)
        query = request.scope.get("query_string", b"").decode("latin-1")
        await self._lookup.in_thread(
            lambda: self._execution_rules.check(worker, request.verb, call, query, task_instance)
        )
        request.exchange.is_about(str(task_instance))
        return request.inner()

    async def _vouched(self, request: _Request) -> Worker:
        text = request.only_header(_CREDENTIAL)
        worker = await self._lookup.find(credential_name(text))
        check_credential(text or "", worker)
        return await self._proved(request, worker)

    # --- client certificates ------------------------------------------------------------------------

    async def _certify(self, request: _Request, worker: Worker, send: Send) -> None:
        """Say what certificate the request came with, or issue the next one."""
        assert self._guard  # noqa: S101 - _serve() looked
        certificates, store = self._guard.certificates, self._guard.store
        if request.verb == "GET":
            await _answer(
                send,
                200,
                {
                    "required": "yes" if certificates.required else "no",
                    "serial": request.only_header(CLIENT_SERIAL) or "",
                    **{f"ends_{held.serial}": held.ends_at.isoformat() for held in worker.certificates},
                },
            )
            return
        issued = certificates.issue(worker.name, _field(await request.body(), "request"))
        await self._lookup.in_thread(lambda: store.add_certificate(issued))
        await _answer(send, 200, described(issued))

    # --- joining ------------------------------------------------------------------------------------

    async def _join(self, request: _Request, send: Send) -> None:
        assert self._guard  # noqa: S101 - _serve() looked
        if request.verb != "POST":
            raise _nothing_here()
        refusal = Refusal(403, "join_refused", "the join token was not accepted")
        _check_version(request)
        self._limits.join_begins(request.client)
        body = await request.body()
        try:
            token, proof = JoinToken.parse(_field(body, "token")), checked_proof(_field(body, "proof") or "")
        except (ValueError, TypeError, AttributeError):
            raise refusal from None
        request.worker = token.name
        store, certificates = self._guard.store, self._guard.certificates
        # Signed before the token is used up: a request that is none costs nobody a token.
        signing_request = _field(body, "request")
        wanted = signing_request is not None and certificates.authority is not None
        issued = certificates.issue(token.name, signing_request) if wanted else None
        try:
            credential = await self._lookup.in_strangers_thread(
                lambda: store.join(token, request.client, proof, issued)
            )
        except JoinRefusedError as error:
            raise Refusal(refusal.status, refusal.reason, str(refusal), audited=error.reason) from None
        self._limits.join_succeeded(request.client)
        request.exchange.worker = token.name
        await _answer(send, 200, {"credential": credential.text, **(described(issued) if issued else {})})

    # --- shared -------------------------------------------------------------------------------------

    async def _proved(self, request: _Request, worker: Worker | None) -> Worker:
        assert worker  # noqa: S101 - nobody proves a secret of nobody
        request.worker = request.exchange.worker = worker.name
        request.proved = True
        _check_version(request)
        self._check_certificate(request, worker)
        await self._limits.enter(worker.name)
        request.in_turn = True
        await self._lookup.mark_seen(worker.name)
        return worker

    def _check_certificate(self, request: _Request, worker: Worker) -> None:
        assert self._guard  # noqa: S101 - _serve() looked
        name, serial = request.only_header(CLIENT_NAME), request.only_header(CLIENT_SERIAL)
        self._guard.certificates.check(name, serial, worker)

    async def _refuse(self, request: _Request, refusal: Refusal, send: Send, detail: str = "") -> None:
        attempt = refusal.correlation or request.claimed
        self._audit.refused(
            refusal.audited,
            worker=request.worker,
            method=request.verb,
            path=request.path,
            client=request.client,
            detail=detail or str(refusal),
            correlation_id=attempt,
        )
        if request.scope["type"] == "websocket":
            # Closed before it was accepted: the server answers 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if refusal.retry_after:
            await self._limits.hold()
        # Without the header: whose attempt it was is not for who was refused to know. A line only about who
        # is proved: strangers are in the record of refusals, and must not fill the log.
        proved = bool(request.exchange.worker)
        request.exchange.correlation, request.exchange.quiet = "", not proved
        await _answer(
            request.exchange.send,
            refusal.status,
            {"detail": str(refusal), "reason": refusal.reason},
            retry_after=refusal.retry_after,
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
        self.proved = False
        self.in_turn = False
        """Whether it has one of the worker's turns, which it has to give back."""
        self.claimed = ""
        """The task instance that the token of a workload names, unproved."""
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

    async def disconnected(self) -> None:
        """Return when nobody waits for the answer any more; the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def receive(self) -> Message:
        """Return what was read already, then what comes."""
        return self._read.pop(0) if self._read else await self._receive()


def _is_edge(scope: Scope) -> bool:
    """Return whether an edge host has to prove itself: it came by the edge door, or calls what is ours."""
    if any(name == _DOOR for name, _ in scope["headers"]):
        return True
    path = _route_path(scope)
    return path.startswith(_OURS) and not _is_for_people(scope, path)


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


def _field(body: bytes, name: str) -> Any:
    """Return a field of a JSON object; ``None`` where there is none."""
    try:
        return json.loads(body).get(name)
    except (ValueError, AttributeError, RecursionError):
        return None


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


async def _answer(send: Send, status: int, body: dict[str, Any], *, retry_after: int = 0) -> None:
    await _send_json(send, status, json.dumps(body).encode(), retry_after=retry_after)


async def _send_json(send: Send, status: int, payload: bytes, *, retry_after: int = 0) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
