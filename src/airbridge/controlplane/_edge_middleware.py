"""ASGI middleware before Airflow's api-server: the only way in for an edge worker.

Everything below ``/edge_worker/`` and ``/airbridge/``, and of ``/execution/`` what comes through the edge
door, is refused unless a worker proves itself with its own secret and may do what it asks (the rules are in
``_edge_rules``, ``_execution_rules`` and ``_s3_rules``). What passes to the edge API is signed anew for it,
so that it accepts nothing that came around this check. Some paths are special: a join token is all that
``join`` takes, ``certificate`` is answered here (see ``_client_certificates``), ``s3-auth`` is the gateway's
question about a request to S3, and two are for people: never served to the edge door.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import airbridge
from airbridge.controlplane._client_certificates import (
    CLIENT_NAME,
    CLIENT_SERIAL,
    ClientCertificates,
    described,
)
from airbridge.controlplane._edge_rules import EdgeRules, is_fetch, job_of_fetch, needs_body
from airbridge.controlplane._edge_token import (
    check_credential,
    check_token,
    claimed_worker,
    credential_name,
    resign,
)
from airbridge.controlplane._execution_rules import ExecutionRules, task_instance_of
from airbridge.controlplane._limits import Limits, LimitSettings
from airbridge.controlplane._lookup import Lookup
from airbridge.controlplane._refusal import Refusal
from airbridge.controlplane._s3_rules import S3Layout, S3Rules
from airbridge.credential import JoinToken
from airbridge.errors import IntegrityError, UnreachableError
from airbridge.identity.store import JoinRefusedError

if TYPE_CHECKING:
    from airbridge.controlplane._audit import Audit
    from airbridge.identity.jobs import Jobs
    from airbridge.identity.model import Worker
    from airbridge.identity.store import WorkerStore

__all__ = ["EdgeGuard", "EdgeMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_EDGE_API: Final = "/edge_worker/v1/"
_OWN_API: Final = "/airbridge/v1/"
_EXECUTION_API: Final = "/execution/"
_OURS: Final = ("/edge_worker", "/airbridge")
_FOR_PEOPLE: Final = frozenset({"/airbridge/v1/workers", "/airbridge/v1/metrics"})
_JOIN: Final = "/airbridge/v1/join"
_S3_AUTH: Final = "/airbridge/v1/s3-auth"
_CERTIFICATE: Final = "/airbridge/v1/certificate"
_DOOR: Final = b"x-airbridge-door"  # set by the gateway on whatever comes through the edge door
_CREDENTIAL: Final = b"x-airbridge-token"  # set by the uplink, for clients that sign nothing
# Our own calls; each that names a worker is the named one's.
_OWN_CALLS: Final = {
    "GET": re.compile(r"version|certificate|(?:workers|enrolment)/(?P<name>[^/]+)"),
    "POST": re.compile("echo|certificate"),
}
# Answers to who has not proved to be a worker.
_UNPROVED: Final = (401, 403)
_NO_NAMES: Final = ("", ".", "..")
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
# What a check reads of a body: registrations, queues and join tokens are small.
_LONGEST_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class EdgeGuard:
    """What requests are checked with."""

    store: WorkerStore
    jobs: Jobs
    internal_secret: str = field(repr=False)
    """``[api_auth] jwt_secret`` of this process, which the edge API behind verifies with."""
    layout: S3Layout
    certificates: ClientCertificates = field(default_factory=ClientCertificates)
    limits: LimitSettings = field(default_factory=LimitSettings)


class EdgeMiddleware:
    """Authenticates and authorizes the requests of edge hosts; every other request passes untouched.

    Args:
        app: the application behind.
        guard: how requests are checked; ``None`` refuses every edge request, which is what a control plane
            without its secrets must do.
        audit: where refusals are written down.
    """

    def __init__(self, app: App, guard: EdgeGuard | None, audit: Audit) -> None:
        self._app = app
        self._guard = guard
        self._audit = audit
        if guard:
            self._lookup = Lookup(guard.store)
            self._limits = Limits(guard.limits)
            self._edge_rules = EdgeRules(guard.jobs)
            self._execution_rules = ExecutionRules(guard.jobs)
            self._s3_rules = S3Rules(guard.layout, self._edge_rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = _route_path(scope)
        through_the_edge_door = any(name == _DOOR for name, _ in scope["headers"])
        if not through_the_edge_door and (not path.startswith(_OURS) or _is_for_people(scope, path)):
            await self._app(scope, receive, send)  # which authenticates by itself
            return
        request = _Request(scope, path, receive)
        try:
            try:
                await self._serve(request, send, through_the_edge_door=through_the_edge_door)
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
        worker = await self._lookup.find(name)
        check_token(authorization or "", worker, call)
        worker = await self._proved(request, worker)
        if prefix == _OWN_API:
            _check_own_call(worker, request.verb, call)
            if request.path == _CERTIFICATE:
                await self._certify(request, worker, send)
                return
        else:
            body = await request.body() if needs_body(request.verb, call) else b""
            await self._lookup.in_thread(lambda: self._edge_rules.check(worker, request.verb, call, body))
        inner = request.inner((b"authorization", resign(call, self._guard.internal_secret).encode()))
        inner["airbridge.worker"] = worker
        if prefix == _EDGE_API and is_fetch(request.verb, call):
            await self._hand_out(inner, request, send, worker.name)
        else:
            await self._app(inner, request.receive, send)

    async def _hand_out(self, inner: Scope, request: _Request, send: Send, worker: str) -> None:
        """Serve a fetch; what it hands out is written down before the worker knows of it."""
        assert self._guard  # noqa: S101 - _serve() looked
        jobs = self._guard.jobs
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(inner, request.receive, keep)
        answer = b"".join(message.get("body", b"") for message in messages)
        key = job_of_fetch(answer)
        if key is not None:
            await self._lookup.in_thread(lambda: jobs.hand_out(key, worker))
        for message in messages:
            await send(message)

    # --- calls that the uplink vouches for ----------------------------------------------------------

    async def _admit_task(self, request: _Request) -> Scope:
        worker = await self._vouched(request)
        task_instance = task_instance_of(request.only_header(b"authorization") or "")
        call = request.path.removeprefix(_EXECUTION_API)
        query = request.scope.get("query_string", b"").decode("latin-1")
        await self._lookup.in_thread(
            lambda: self._execution_rules.check(worker, request.verb, call, query, task_instance)
        )
        return request.inner()

    async def _answer_gateway(self, request: _Request, send: Send) -> None:
        """Say 200 when the request to S3 that the gateway holds may go on."""
        method = request.only_header(b"x-forwarded-method") or ""
        uri = request.only_header(b"x-forwarded-uri") or ""
        request.about = (method, uri)
        try:
            worker = await self._vouched(request)
        except Refusal as refusal:
            # S3 knows no 401; clients of it treat "denied" as what it is.
            raise refusal.with_status(403) if refusal.status == 401 else refusal from None
        if self._s3_rules.needs_database(uri):
            await self._lookup.in_thread(lambda: self._s3_rules.check(worker, method, uri))
        else:
            self._s3_rules.check(worker, method, uri)
        await _answer(send, 200, {"worker": worker.name})

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
            token = JoinToken.parse(_field(body, "token"))
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
                lambda: store.join(token, request.client, issued)
            )
        except JoinRefusedError as error:
            raise Refusal(refusal.status, refusal.reason, str(refusal), audited=error.reason) from None
        self._limits.join_succeeded(request.client)
        await _answer(send, 200, {"credential": credential.text, **(described(issued) if issued else {})})

    # --- shared -------------------------------------------------------------------------------------

    async def _proved(self, request: _Request, worker: Worker | None) -> Worker:
        assert worker  # noqa: S101 - nobody proves a secret of nobody
        request.worker = worker.name
        request.proved = True
        _check_version(request)
        assert self._guard  # noqa: S101 - _serve() looked
        name, serial = request.only_header(CLIENT_NAME), request.only_header(CLIENT_SERIAL)
        self._guard.certificates.check(name, serial, worker)
        # What S3 is asked is not a call of the worker's own client: the two are not to use up each other.
        await self._limits.enter(worker.name, "s3" if request.about else "")
        request.in_turn = True
        await self._lookup.mark_seen(worker.name)
        return worker

    async def _refuse(self, request: _Request, refusal: Refusal, send: Send, detail: str = "") -> None:
        method, path = request.about or (request.verb, request.path)
        self._audit.refused(
            refusal.audited,
            worker=request.worker,
            method=method,
            path=path,
            client=request.client,
            detail=detail or str(refusal),
        )
        if request.scope["type"] == "websocket":
            # Closed before it was accepted: the server answers 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if refusal.retry_after:
            await self._limits.hold()
        await _answer(
            send,
            refusal.status,
            {"detail": str(refusal), "reason": refusal.reason},
            retry_after=refusal.retry_after,
        )


class _Request:
    """One request: what it says, and who sent it once that is proved."""

    def __init__(self, scope: Scope, path: str, receive: Receive) -> None:
        self.scope = scope
        self.path = path
        self.verb: str = scope.get("method", "")
        self.worker = ""
        self.proved = False
        self.in_turn = False
        """Whether it has one of the worker's turns, which it has to give back."""
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


async def _answer(send: Send, status: int, body: dict[str, str], *, retry_after: int = 0) -> None:
    payload = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
