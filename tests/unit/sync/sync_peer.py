"""A small S3 server for dag-sync's unit tests: real HTTP, real rclone against it, and faults on demand."""

from __future__ import annotations

import email.utils
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Stored:
    body: bytes
    etag: str
    version: str
    modified: str = "2026-01-01T00:00:00.000Z"
    written: str = field(default_factory=lambda: email.utils.formatdate(usegmt=True))
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def operation(self) -> str:
        return "list" if not self.key else self.method.lower()


class Peer:
    """One bucket, ``bucket``. ``fault`` may answer a request itself; ``after`` runs once one was answered."""

    bucket = "airbridge-dags"

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.versions: dict[tuple[str, str], Stored] = {}
        self.requests: list[Request] = []
        self.page_size = 1000
        self.fault: Callable[[Request], Answer | None] = lambda _request: None
        self.after: Callable[[Request], None] = lambda _request: None
        self._versions = 0
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if peer._stopped:
                    raise ConnectionAbortedError  # a kept-alive connection ends with its server
                url = urlsplit(self.path)
                _, _, key = url.path.lstrip("/").partition("/")
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(
                    self.command, unquote(key, errors="surrogateescape"), query, dict(self.headers), body
                )
                peer.requests.append(request)
                status, headers, body = peer.fault(request) or peer.answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                peer.after(request)

            do_HEAD = do_PUT = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._handler, self._server_class = Handler, Server
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._serve()

    def _serve(self) -> None:
        self._stopped = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop listening: connections are refused."""
        self._stopped = True
        self._server.shutdown()
        self._server.server_close()

    def start(self) -> None:
        """Listen again, on the same port."""
        self._server = self._server_class(("127.0.0.1", self.port), self._handler)
        self._serve()

    def put(
        self, key: str, body: str | bytes, *, etag: str | None = None, modified: str | None = None
    ) -> Stored:
        data = body.encode() if isinstance(body, str) else body
        self._versions += 1
        stored = Stored(data, etag or hashlib.md5(data).hexdigest(), f"v{self._versions}")
        if modified:
            stored.modified = modified
        self.versions[key, stored.version] = stored
        self.objects = {**self.objects, key: stored}
        return stored

    def delete(self, key: str) -> None:
        self.objects = {name: stored for name, stored in self.objects.items() if name != key}

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)

    def answer(self, request: Request) -> Answer:
        if not request.key:
            return 200, {"Content-Type": "application/xml"}, self.listing(request.query)
        version = request.query.get("versionId")
        if request.method == "PUT":
            stored = self.put(request.key, request.body)
            return 200, {"ETag": f'"{stored.etag}"', "x-amz-version-id": stored.version}, b""
        if request.method == "DELETE":
            current = self.objects.get(request.key)
            if version is None or (current and current.version == version):
                self.delete(request.key)
            self.versions.pop((request.key, version or ""), None)
            return 204, {}, b""
        found = self.versions.get((request.key, version)) if version else self.objects.get(request.key)
        if found is None:
            return (
                404,
                {},
                b"" if request.method == "HEAD" else error("NoSuchVersion" if version else "NoSuchKey"),
            )
        stored = found
        if request.headers.get("If-None-Match") == f'"{stored.etag}"':
            return 304, {"ETag": f'"{stored.etag}"'}, b""
        headers = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": stored.written,
            "x-amz-version-id": stored.version,
            "Content-Length": str(len(stored.body)),
            **stored.headers,
        }
        return 200, headers, stored.body

    def listing(self, query: dict[str, str]) -> bytes:
        prefix = query["prefix"]
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        start = int(query.get("continuation-token", "0"))
        page = keys[start : start + self.page_size]
        more = start + self.page_size < len(keys)
        contents = "".join(
            f"<Contents><Key>{escape(quote(key, errors='surrogateescape'))}</Key>"
            f"<LastModified>{stored.modified}</LastModified>"
            f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{len(stored.body)}</Size>"
            "<StorageClass>STANDARD</StorageClass><Owner><ID>x</ID></Owner></Contents>"
            for key in page
            for stored in [self.objects[key]]
        )
        token = f"<NextContinuationToken>{start + self.page_size}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self.bucket}</Name><Prefix>{quote(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{contents}</ListBucketResult>"
        ).encode()


def error(code: str, message: str = "said the test") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def read_tree(path: object) -> dict[str, bytes]:
    """Read every file below ``path``."""
    from pathlib import Path

    top = Path(str(path))
    return {file.relative_to(top).as_posix(): file.read_bytes() for file in top.rglob("*") if file.is_file()}
