"""The door itself: reads a request, makes sure who sent it and that it may, and hands it on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram

import airbridge
from airbridge.audit import Audit
from airbridge.errors import AirbridgeError, IntegrityError, UnreachableError
from airbridge.identity.database import Database
from airbridge.identity.jobs import Jobs
from airbridge.identity.model import Worker
from airbridge.identity.publishers import PublisherStore
from airbridge.identity.roster import Roster
from airbridge.identity.store import Cipher, WorkerStore
from airbridge.s3door._body import TRAILER_PAYLOAD, Body
from airbridge.s3door._deletions import LONGEST_BODY, Deletions
from airbridge.s3door._directory import Directory
from airbridge.s3door._errors import S3Error, access_denied, invalid_request, wrong_signature
from airbridge.s3door._limits import Limits, Meter
from airbridge.s3door._operation import Action, Operation
from airbridge.s3door._request import Request
from airbridge.s3door._rules import Layout, Rules
from airbridge.s3door._settings import HEALTH_PORT
from airbridge.s3door._signature import UNSIGNED, Proof, read_claim, verify
from airbridge.s3door._upstream import Upstream, aws_keys, passed_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airbridge.identity.publishers import Publisher
    from airbridge.s3door._settings import Settings

__all__ = ["Door", "serve"]

_Result = TypeVar("_Result")

# Of a client certificate that the gateway verified.
_CLIENT_NAME: Final = "x-airbridge-client-name"
_CLIENT_SERIAL: Final = "x-airbridge-client-serial"
_VERSION: Final = "x-airbridge-version"
_THREADS: Final = 8  # connections to the database that checks may hold at once
_PIECE: Final = 64 * 1024
_BODY_PATIENCE_S: Final = 60.0  # between two pieces of a body
_DRAIN_S: Final = 10.0  # for requests under way when the door is closed
_LONGEST_HEADER: Final = 16 * 1024
# Of S3's answers: what belongs to its connection, or is ours to say.
_HOP_BY_HOP: Final = frozenset({
    "connection", "date", "keep-alive", "proxy-authenticate", "server", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip


class Door:
    """Serves S3 to principals.

    Args:
        settings: see :mod:`airbridge.s3door._settings`.
        upstream: S3.
        audit: where refusals are written down.
        registry: where requests are counted.
    """

    def __init__(
        self, settings: Settings, upstream: Upstream, audit: Audit, registry: CollectorRegistry
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._audit = audit
        database = Database.at(settings.database.get_secret_value(), kept=_THREADS)
        cipher = Cipher(settings.fernet_key.get_secret_value())
        self._directory = Directory(WorkerStore(database, cipher), PublisherStore(database, cipher))
        self._roster: Roster[Worker | Publisher] = Roster(self._directory)
        self._rules = Rules(
            Layout(settings.dag_bucket, settings.log_bucket, settings.environment), Jobs(database)
        )
        self._meter = Meter(Limits(settings.s3_door_rate, settings.s3_door_in_flight))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="database")
        self._requests = Counter(
            "airbridge_s3_requests", "Requests that S3 answered.", ["operation", "status"], registry=registry
        )
        self._seconds = Histogram(
            "airbridge_s3_seconds", "From a request's head to the end of its answer.", registry=registry
        )

    # --- one request ------------------------------------------------------------------------------

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        visit = _Visit(http)
        try:
            with self._seconds.time():
                return await self._serve(visit)
        except S3Error as error:
            return self._refuse(visit, error)
        except (UnreachableError, IntegrityError) as error:
            unready = S3Error(503, "ServiceUnavailable", "Please try again.", reason="not_ready")
            return self._refuse(visit, unready, detail=str(error))

    async def _serve(self, visit: _Visit) -> web.StreamResponse:
        request = Request.read(visit.http.method, visit.http.raw_path, visit.http.raw_headers)
        proof, principal = await self._prove(visit, request)
        with self._meter.admitted(visit.name):
            operation = Operation.of(request)
            if self._rules.needs_database(operation):
                await self._in_thread(lambda: self._rules.check(principal, operation))
            else:
                self._rules.check(principal, operation)
            longest = self._settings.s3_door_max_body_mib * 1024 * 1024
            body = Body.of(request, proof.claim.payload, longest)
            if operation.action is Action.DELETE_MANY:
                document = await self._deletions(visit, body, proof, principal)
                return await self._delete_many(visit, request, operation, document)
            return await self._hand_on(visit, request, operation, body, proof)

    async def _prove(self, visit: _Visit, request: Request) -> tuple[Proof, Worker | Publisher]:
        """Make sure who sent the request."""
        claim = read_claim(request, self._settings.aws_default_region, datetime.now(UTC))
        principal = await self._find(claim.name)
        proof = verify(request, claim, principal.secrets if principal else ())
        if principal is None:
            raise wrong_signature("principal_unknown")
        if proof is None:
            raise wrong_signature("signature_wrong")
        visit.name = principal.name
        state = principal.state(datetime.now(UTC))
        if state in {"revoked", "expired"}:
            raise access_denied("This enrolment has ended.", f"principal_{state}")
        _check_version(request)
        if isinstance(principal, Worker) and self._settings.gateway_client_certificates == "require":
            _check_certificate(request, principal)
        if self._roster.saw(principal.name):
            await self._in_thread(self._roster.write_seen)
        return proof, principal

    async def _find(self, name: str) -> Worker | Publisher | None:
        fresh, principal = self._roster.remembered(name)
        return principal if fresh else await self._in_thread(lambda: self._roster.find(name))

    # --- what S3 is asked -------------------------------------------------------------------------

    async def _hand_on(
        self, visit: _Visit, request: Request, operation: Operation, body: Body, proof: Proof
    ) -> web.StreamResponse:
        headers = passed_on(request)
        if operation.source is not None:
            headers["x-amz-copy-source"] = operation.source.text
        payload = UNSIGNED
        if body.trailer:
            payload = TRAILER_PAYLOAD
            headers["x-amz-trailer"] = body.trailer
            headers["x-amz-decoded-content-length"] = str(body.length)
            headers["content-encoding"] = ",".join(["aws-chunked", *_one(headers.get("content-encoding"))])
        await _go_on(visit.http)
        failure: list[S3Error] = []
        content = _watched(body.stream(_pieces(visit.http), proof), failure)
        if body.length == 0:
            # Nothing to hold back: what there is must be right before S3 hears of it.
            rest = b"".join([piece async for piece in content])
            sent: Any = rest or None
        else:
            sent = content
        query = [pair for pair in request.query if not pair[0].startswith(b"X-Amz-")]
        asking = self._upstream.ask(
            request.method, request.path, query, headers, body=sent, length=body.sent_length, payload=payload
        )
        return await self._relay(visit, operation, asking, failure)

    async def _deletions(
        self, visit: _Visit, body: Body, proof: Proof, principal: Worker | Publisher
    ) -> bytes:
        """Return the body of a batch deletion, each of its keys checked."""
        if body.length > LONGEST_BODY or body.trailer:
            raise invalid_request("A deletion is a short body of its own.", "MalformedXML", "xml_malformed")
        await _go_on(visit.http)
        text = b"".join([piece async for piece in body.stream(_pieces(visit.http), proof)])
        deletions = Deletions.parse(text)
        for key in deletions.keys:
            self._rules.check_key(principal, key)
        return deletions.document

    async def _delete_many(
        self, visit: _Visit, request: Request, operation: Operation, document: bytes
    ) -> web.StreamResponse:
        md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
        asking = self._upstream.ask(
            "POST",
            request.path,
            [(b"delete", b"")],
            {"content-md5": md5, "content-type": "application/xml"},
            body=document,
            length=len(document),
        )
        return await self._relay(visit, operation, asking, [])

    async def _relay(
        self, visit: _Visit, operation: Operation, asking: Any, failure: list[S3Error]
    ) -> web.StreamResponse:
        """Send S3's answer on; ``failure`` holds what was wrong with the body, if anything was."""
        answer: web.StreamResponse | None = None
        try:
            async with asking as got:
                headers = CIMultiDict(
                    (name, value) for name, value in got.headers.items() if name.lower() not in _HOP_BY_HOP
                )
                answer = web.StreamResponse(status=got.status, reason=got.reason, headers=headers)
                await answer.prepare(visit.http)
                async for piece in got.content.iter_chunked(_PIECE):
                    await answer.write(piece)
                await answer.write_eof()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if failure:
                raise failure[0] from None
            if answer is not None and answer.prepared:
                # Half an answer must not look like a whole one.
                if visit.http.transport is not None:
                    visit.http.transport.abort()
                return answer
            raise UnreachableError(f"S3 does not answer: {type(error).__name__} {error}") from error
        self._requests.labels(operation.action.value, str(answer.status)).inc()
        return answer

    # --- refusing -----------------------------------------------------------------------------------

    def _refuse(self, visit: _Visit, error: S3Error, detail: str = "") -> web.Response:
        http = visit.http
        self._audit.refused(
            error.reason,
            worker=visit.name,
            method=http.method,
            path=http.raw_path.partition("?")[0],
            client=visit.client,
            detail=detail or error.message,
        )
        request_id = uuid.uuid4().hex
        answer = web.Response(
            status=error.status,
            body=b"" if http.method == "HEAD" else error.document(request_id),
            content_type="application/xml",
            headers={"x-amz-request-id": request_id},
        )
        if error.status == 503:
            answer.headers["Retry-After"] = "1"
        if not http.content.at_eof():
            answer.force_close()  # nobody reads the rest of what was refused
        return answer

    # --- health -------------------------------------------------------------------------------------

    async def health(self) -> str:
        """Return what the door cannot do now, empty when it can do its job: look up, and ask S3."""
        try:
            await self._in_thread(lambda: self._directory.find("health"))
            bucket = f"/{self._settings.dag_bucket}".encode()
            async with asyncio.timeout(5), self._upstream.ask("HEAD", bucket) as answer:
                if answer.status != 200:
                    return f"S3 answers {answer.status} for the bucket {self._settings.dag_bucket}"
        except AirbridgeError as error:
            return error.what
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"S3 does not answer: {type(error).__name__}"
        return ""

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Visit:
    """One request, and who sent it once that is proved."""

    def __init__(self, http: web.BaseRequest) -> None:
        self.http = http
        self.name = ""

    @property
    def client(self) -> str:
        """Address that the gateway saw, or that of who came around it."""
        forwarded = self.http.headers.getall("X-Forwarded-For", [])
        peer = self.http.remote or "?"
        return forwarded[-1].rpartition(",")[2].strip()[:64] if forwarded else peer


def _one(value: str | None) -> list[str]:
    return [value] if value else []


def _check_certificate(request: Request, worker: Worker) -> None:
    """Make sure that an edge host's request came with its own certificate. Publishers have none."""
    if request.headers.get(_CLIENT_NAME, "") != worker.name:
        named = _CLIENT_NAME in request.headers
        reason = "certificate_mismatch" if named else "certificate_missing"
        raise access_denied("An edge host needs its client certificate.", reason)
    if not worker.holds_certificate(request.headers.get(_CLIENT_SERIAL, ""), datetime.now(UTC)):
        raise access_denied(
            "The client certificate was replaced by a newer one, or has ended.", "certificate_ended"
        )


def _check_version(request: Request) -> None:
    """Make sure that an edge host is of this release (D4); others send no version."""
    theirs = request.headers.get(_VERSION, airbridge.__version__)
    if theirs != airbridge.__version__:
        raise invalid_request(
            f"this edge host runs AirBridge {theirs[:32]}, the control plane {airbridge.__version__}; "
            "build the edge images from the control plane's release (make build-edge-worker)",
            reason="version_mismatch",
        )


async def _go_on(http: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body."""
    if http.headers.get("Expect", "").lower() == "100-continue" and http._payload_writer is not None:
        await http._payload_writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _pieces(http: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body as it comes."""
    while True:
        try:
            async with asyncio.timeout(_BODY_PATIENCE_S):
                piece = await http.content.read(_PIECE)
        except TimeoutError:
            raise S3Error(400, "RequestTimeout", "The body came too slowly.", reason="body_slow") from None
        except (aiohttp.ClientError, ConnectionError):
            raise S3Error(
                400, "IncompleteBody", "The body ended too early.", reason="body_incomplete"
            ) from None
        if not piece:
            return
        yield piece


async def _watched(content: AsyncIterator[bytes], failure: list[S3Error]) -> AsyncIterator[bytes]:
    """Yield ``content``; what breaks it off is kept, because the HTTP client does not tell."""
    try:
        async for piece in content:
            yield piece
    except S3Error as error:
        failure.append(error)
        raise


async def _serve(settings: Settings) -> None:
    registry = CollectorRegistry()
    audit = Audit(registry, "s3")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            Upstream(settings.upstream, settings.aws_default_region, aws_keys())
        )
        door = Door(settings, upstream, audit, registry)

        async def inside(http: web.BaseRequest) -> web.StreamResponse:
            if http.path == "/metrics":
                return web.Response(body=audit.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})
            trouble = await door.health() if http.path == "/healthz" else "there is nothing here"
            return web.Response(status=503 if trouble else 200, text=trouble or "ok")

        for handler, port in ((inside, HEALTH_PORT), (door.handle, settings.s3_door_port)):
            server = web.Server(
                handler,
                access_log=None,
                auto_decompress=False,
                max_line_size=_LONGEST_HEADER,
                max_field_size=_LONGEST_HEADER,
            )
            runner = web.ServerRunner(server, shutdown_timeout=_DRAIN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, None, port).start()
        print(f"s3-door: listens on port {settings.s3_door_port}, S3 is {settings.upstream}", flush=True)
        await stopped.wait()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(settings))
