"""A control plane that requires client certificates, and its edge door as holders of them see it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from _stack import PROJECT, Stack

from airbridge.client_certificate import ClientCertificate
from airbridge.credential import Credential
from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Door", "strict"]


@dataclass(frozen=True)
class Door:
    """The edge door of a control plane that requires client certificates."""

    stack: Stack
    folder: Path

    def client(self, held: ClientCertificate | None) -> httpx.Client:
        """A TLS client of its own connection, with a certificate or without."""
        context = ssl.create_default_context(cadata=self.stack.gateway_ca)
        if held is not None:
            file = self.folder / f"{held.serial}.pem"
            file.write_text(held.text)
            context.load_cert_chain(file)
        return httpx.Client(
            verify=context,
            trust_env=False,
            timeout=60,
            base_url=f"https://127.0.0.1:{self.stack.gateway_port}",
            headers={"Host": "host.docker.internal"},
        )

    def ask(
        self,
        held: ClientCertificate | None,
        who: Credential,
        call: str = "version",
        *,
        method: str = "GET",
        body: Any = None,
        **headers: str,
    ) -> httpx.Response:
        """One call of ours that ``who`` signs, over a connection with this certificate."""
        signed = request_headers(who.secret, who.name, call) | headers
        with self.client(held) as client:
            return client.request(
                method,
                f"/airbridge/v1/{call}",
                headers=signed,
                json=body,
                extensions={"sni_hostname": "host.docker.internal"},
            )

    def reason(self, held: ClientCertificate | None, who: Credential, **options: Any) -> str:
        """Why the call was refused: ``handshake``, a reason of ours, or empty."""
        try:
            answer = self.ask(held, who, **options)
        except (httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError):
            return "handshake"
        return "" if answer.is_success else str(answer.json()["reason"])

    def enrolled(self, name: str) -> tuple[Credential, ClientCertificate]:
        """A credential and a certificate for a worker without a host."""
        return self.enrolled_certificate(Credential.parse(self.stack.ensure(name, name)))

    def enrolled_certificate(self, who: Credential) -> tuple[Credential, ClientCertificate]:
        """The credential, and a new certificate for its worker."""
        return who, ClientCertificate.parse(self.stack.identity("certificate", who.name).stdout)


@pytest.fixture(scope="session")
def strict(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A control plane of its own that requires client certificates, with limits that a test can reach."""
    stack = Stack.start(
        tmp_path_factory.mktemp("strict"),
        f"{PROJECT}-strict",
        GATEWAY_CLIENT_CERTIFICATES="require",
        EDGE_LIMIT_RATE="8",
        EDGE_LIMIT_BURST="60",
        EDGE_LIMIT_FAILURES="40",
        EDGE_LIMIT_JOINS="10",
    )
    yield Door(stack, tmp_path_factory.mktemp("certificates"))
    stack.remove()
