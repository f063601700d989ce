"""Runs in a container beside the gateway: the services behind it, each answering with what it was asked.

``api-server`` on 8080 and ``s3-door`` on 9000 answer with JSON. Port 443 hands connections on to the address
in FORWARD_TO, untouched, as a host's published port does.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICES = {8080: "api-server", 9000: "s3-door"}


class Echo(BaseHTTPRequestHandler):
    """Answers every method with what arrived."""

    protocol_version = "HTTP/1.1"

    def _echo(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode("latin-1")
        seen = {
            "upstream": SERVICES[self.server.server_address[1]],
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body,
        }
        payload = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Upstream", seen["upstream"])
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)

    def __getattr__(self, name: str):
        if name.startswith("do_"):
            return self._echo
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _forward(host: str, port: int) -> None:
    door = socket.create_server(("", 443))
    while True:
        client, _ = door.accept()
        try:
            target = socket.create_connection((host, port), timeout=5)
        except OSError:
            client.close()
            continue
        target.settimeout(None)
        for pair in ((client, target), (target, client)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


if os.environ.get("FORWARD_TO"):
    name, _, number = os.environ["FORWARD_TO"].partition(":")
    threading.Thread(target=_forward, args=(name, int(number)), daemon=True).start()
servers = [ThreadingHTTPServer(("", port), Echo) for port in SERVICES]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening", flush=True)
servers[0].serve_forever()
