"""Runs inside the control-plane image: an HTTP endpoint that writes down what it is told, one line a call."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class _Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Write path and body down."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with Path("/tmp/told").open("a") as told:
            told.write(f"{self.path} {body}\n")
        self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", 8099), _Endpoint).serve_forever()
