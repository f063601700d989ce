"""Real servers on loopback: a control plane over TLS, an uplink before it, and S3."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
from dataclasses import asdict
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.controlplane.edge_requests import Enrolments, Ledger, door_before, worker

from airbridge.controlplane._client_certificates import ClientCertificates
from airbridge.courier_status import STATUS_PATH, CourierStatus
from airbridge.credential import Credential
from airbridge.edge._control_plane import Versions
from airbridge.identity.authority import Authority as ClientAuthority

if TYPE_CHECKING:
    from pathlib import Path

WORKER = "north-1"
SECRET = "secret-of-the-unit-tests-" + "t" * 39
TOKEN = Credential(WORKER, SECRET).text
VERSIONS = Versions(airbridge="0.1.0", airflow="3.0.4", edge_provider="5.1.0")


class Authority:
    """A certificate authority of its own."""

    def __init__(self, folder: Path, name: str = "unit test CA") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            self._builder(
                self._name, self._key, now - datetime.timedelta(days=400), now + datetime.timedelta(days=400)
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: Any, start: Any, end: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )

    def issue(
        self, names: tuple[str, ...] = ("127.0.0.1",), *, starts: float = -1.0, ends: float = 90.0
    ) -> Path:
        """Return a PEM file with key and certificate; ``starts`` and ``ends`` are days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        entries: list[x509.GeneralName] = []
        for name in names:
            try:
                entries.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                entries.append(x509.DNSName(name))
        certificate = (
            self._builder(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")]),
                key,
                now + datetime.timedelta(days=starts),
                now + datetime.timedelta(days=ends),
            )
            .add_extension(x509.SubjectAlternativeName(entries), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"server-{certificate.serial_number}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


class Plane:
    """A control plane: the project's own middleware before the few routes that an edge host calls.

    The registry follows edge3's ``worker_api/routes/worker.py``.
    """

    def __init__(self) -> None:
        self.versions = VERSIONS
        self.clock_offset = 0.0
        """Seconds by which this control plane's clock is ahead."""
        self.status: int | None = None
        """Answer everything with this HTTP status and no body, as a proxy without its upstream does."""
        self.mangle_posts = False
        self.courier = CourierStatus(False, 0.0, "", 0, 0, 0.0, 0, 0, 0, 1024)
        """What the courier of the host says, where this stands in for it."""
        self.workers: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.enrolments = Enrolments(worker(WORKER, SECRET))
        self.authority = ClientAuthority.new()
        self.issues_certificates(True)

    def issues_certificates(self, does: bool) -> None:
        """Let it have a client CA, or none."""
        certificates = ClientCertificates(authority=self.authority if does else None)
        self._middleware = door_before(self._routes, self.enrolments, Ledger(), certificates=certificates)

    def heartbeat(self, name: str = WORKER, state: str = "idle", age: float = 0.0) -> None:
        """Note a heartbeat of a worker, ``age`` seconds ago."""
        self.workers[name] = {"state": state, "seen": time.time() - age}

    def handle(
        self, verb: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, bytes]:
        """Answer one request."""
        self.requests.append((verb, path))
        if self.status is not None:
            return self.status, b""
        sent: list[Any] = []
        unread = [body]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": verb, "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
        asyncio.run(self._middleware(scope, receive, send))
        return sent[0]["status"], sent[1]["body"]

    async def _routes(self, scope: Any, receive: Any, send: Any) -> None:
        verb, path = scope["method"], scope["path"]
        body = json.loads((await receive())["body"] or b"{}")
        status, answer = self._route(verb, path, body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _route(self, verb: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = path.rpartition("/")[2]
        if (verb, path) == ("GET", "/airbridge/v1/version"):
            v = self.versions
            return 200, {
                "airbridge": v.airbridge,
                "airflow": v.airflow,
                "edge_provider": v.edge_provider,
                "time": "",
            }
        if (verb, path) == ("GET", STATUS_PATH):
            return 200, asdict(self.courier)
        if (verb, path) == ("GET", f"/airbridge/v1/enrolment/{WORKER}"):
            allowance = self.enrolments.workers[WORKER].allowance
            return 200, {"queues": allowance.queues, "concurrency": allowance.concurrency}
        if (verb, path) == ("POST", "/airbridge/v1/echo"):
            return 200, {"nonce": "other"} if self.mangle_posts else body
        if verb == "GET" and path.startswith("/airbridge/v1/workers/"):
            if name not in self.workers:
                return 404, {"detail": f"worker '{name}' has not registered"}
            worker = self.workers[name]
            seen = worker["seen"]
            return 200, {
                "name": name,
                "state": worker["state"],
                "queues": ["default"],
                "last_update": str(seen),
                "age_s": time.time() - seen,
            }
        if verb == "PATCH" and path.startswith("/edge_worker/v1/worker/"):
            assert {"airflow_version", "edge_provider_version"} <= set(body["sysinfo"])
            self.workers[name] = {"state": body["state"], "seen": time.time()}
            return 200, {}
        return 404, {"detail": "Not Found"}


def _handler(plane: Plane) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = [(k.lower().encode(), v.encode()) for k, v in self.headers.items()]
            status, answer = plane.handle(self.command, self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_PATCH = _serve

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + plane.clock_offset, usegmt=True)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake in the request's own thread, so that a client that hangs up blocks nobody.
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that refuse a certificate are what these tests are about."""


class Servers:
    """Starts servers and stops them all."""

    def __init__(self) -> None:
        self._running: list[_QuietServer] = []

    def start(self, plane: Plane, pem: Path | None = None, *, oldest_tls: bool = False) -> int:
        """Serve ``plane``, over TLS when ``pem`` is given, and return the port."""
        server = _QuietServer(("127.0.0.1", 0), _handler(plane))
        if pem is not None:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            if oldest_tls:
                server.tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                server.tls.maximum_version = ssl.TLSVersion.TLSv1_1
                server.tls.set_ciphers("ALL:@SECLEVEL=0")
            server.tls.load_cert_chain(pem)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self._running.append(server)
        return int(server.server_address[1])

    def stop(self) -> None:
        """Stop all of them."""
        for server in self._running:
            server.shutdown()
            server.server_close()
        self._running.clear()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
