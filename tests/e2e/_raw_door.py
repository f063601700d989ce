"""The edge door as bytes: requests that no HTTP library would send, over TLS connections of their own."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _stack import Stack

__all__ = ["RawAnswer", "RawDoor"]

#: Seconds after which a silent door counts as one that waits for more.
_SILENCE_S = 3.0
NAME = "host.docker.internal"


@dataclass(frozen=True)
class RawAnswer:
    """All that came back on one connection."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        """Status of every response in it, but interim ones."""
        found = (int(code) for code in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", self.data))
        return [code for code in found if code >= 200]

    def __str__(self) -> str:
        return repr(self.data[:600])


@dataclass(frozen=True)
class RawDoor:
    """The gateway of a running stack."""

    port: int
    ca: str

    @classmethod
    def of(cls, stack: Stack) -> RawDoor:
        """The edge door of this control plane."""
        return cls(stack.gateway_port, stack.gateway_ca)

    def context(self) -> ssl.SSLContext:
        """A TLS client that trusts the gateway."""
        return ssl.create_default_context(cadata=self.ca)

    def connect(self, context: ssl.SSLContext | None = None, name: str = NAME) -> ssl.SSLSocket:
        """Open a connection."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return (context or self.context()).wrap_socket(plain, server_hostname=name)

    def send(self, *pieces: str) -> RawAnswer:
        """Send bytes (latin-1), and read until the door closes the connection or falls silent."""
        with self.connect() as connection:
            connection.settimeout(_SILENCE_S)
            received = b""
            try:
                for piece in pieces:
                    connection.sendall(piece.encode("latin-1"))
                while data := connection.recv(65536):
                    received += data
            except (TimeoutError, ConnectionError, ssl.SSLError):
                pass  # what came until then is the answer
            return RawAnswer(received)
