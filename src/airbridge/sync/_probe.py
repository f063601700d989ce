"""Ask a running dag-sync how it is; imports next to nothing, because Docker runs it every few seconds."""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["probe"]

_SECONDS = 3.0


def probe() -> int:
    """Print what ``/healthz`` of this host says; return 0 when it is healthy, else 1."""
    port = os.environ.get("HEALTH_PORT") or "8081"
    try:
        with socket.create_connection(("127.0.0.1", int(port)), _SECONDS) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except (OSError, ValueError, OverflowError) as error:
        print(f"dag-sync does not answer on HEALTH_PORT={port}: {error}", file=sys.stderr)
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode(errors="replace").strip())
    return 0 if head.split(b" ", 2)[1:2] == [b"200"] else 1
