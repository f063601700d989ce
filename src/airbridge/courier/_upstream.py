"""The way from the courier to the control plane: one HTTP client, through the uplink."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp import web
from yarl import URL

from airbridge.courier._answers import Answer
from airbridge.courier._calls import EDGE_API, read_call
from airbridge.edge.token import API_PREFIX, request_headers, request_token
from airbridge.edge.worker_credential import read_credential
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from airbridge.credential import Credential

__all__ = ["CHUNK_HEADER", "FETCH_HEADER", "Upstream", "end_to_end"]

FETCH_HEADER: Final = "X-AirBridge-Fetch"
"""Id of the question for a job: the same id is answered with the same job."""
CHUNK_HEADER: Final = "X-AirBridge-Chunk"
"""Time of a piece of log, which is its key: a piece that is there already is not appended again."""

_PROBE: Final = "version"
# The uplink goes on dialling for longer; whoever waits for this one has a shorter patience.
_PROBE_TIMEOUT_S: Final = 5.0
_CONNECTIONS: Final = 32
_ERRORS: Final = (TimeoutError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError)
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that are meant for the other end."""
    named = {part.strip().lower() for part in headers.get("Connection", "").split(",")}
    dropped = _HOP_BY_HOP | named
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def _no_answer(error: BaseException, timeout: float) -> Answer:
    if isinstance(error, TimeoutError):
        return Answer(0, error=f"no answer within {timeout:g} s")
    return Answer(0, error=str(error) or type(error).__name__)


def _unpacked(status: int, headers: dict[str, str], body: bytes) -> Answer:
    """Return an answer whose body can be read here."""
    kept = {name: value for name, value in headers.items() if name.lower() != "content-encoding"}
    if len(kept) < len(headers):
        with contextlib.suppress(OSError, EOFError, zlib.error):
            return Answer(status, kept, gzip.decompress(body))
    return Answer(status, headers, body)


class Upstream:
    """Sends calls. An asynchronous context manager.

    :param environ: where the credential comes from, read anew for each signature: a host that joins gets it
        while the courier runs
    """

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self._url = url
        self._environ = environ
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def credential(self) -> Credential | None:
        """Return the worker's credential; ``None``: this host has none (yet)."""
        try:
            return read_credential(self._environ)
        except SettingsError:
            return None

    async def send(
        self,
        verb: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,
        sign: bool = False,
    ) -> Answer:
        """Send one call and return the answer, or what stood in its way.

        :param sign: with the worker's credential, now: what waited in the spool carries a token that is
            long over
        """
        given = end_to_end(headers)
        # The courier reads these answers; compressed ones are for those who stream.
        given = {name: value for name, value in given.items() if name.lower() != "accept-encoding"}
        if sign:
            call = read_call(verb, target)
            credential = self.credential()
            if call is not None and call.api == EDGE_API and credential is not None:
                given = {name: value for name, value in given.items() if name.lower() != "authorization"}
                given["Authorization"] = request_token(credential.secret, credential.name, call.path)
        try:
            async with self._session.request(
                verb,
                URL(self._url + target, encoded=True),
                headers=given,
                data=body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                return Answer(response.status, end_to_end(response.headers), await response.read())
        except _ERRORS as error:
            return _no_answer(error, timeout)

    async def relay(
        self, request: web.Request, headers: Mapping[str, str], body: bytes, *, timeout: float
    ) -> web.StreamResponse | Answer:
        """Send a task's question on, and its answer back as it comes: it may be large and the line slow.

        :param timeout: seconds without a byte
        :return: what was sent back, or an answer that is none
        """
        try:
            async with self._session.request(
                request.method,
                URL(self._url + request.raw_path, encoded=True),
                headers=end_to_end(headers),
                data=body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            ) as response:
                about = end_to_end(response.headers)
                if not response.ok:
                    return _unpacked(response.status, about, await response.read())
                back = web.StreamResponse(status=response.status, headers=about)
                if response.content_length is not None:
                    back.content_length = response.content_length
                await back.prepare(request)
                async for piece in response.content.iter_any():
                    await back.write(piece)
                await back.write_eof()
                return back
        except _ERRORS as error:
            return _no_answer(error, timeout)

    async def probe(self) -> Answer:
        """Ask for the control plane's version, as the worker."""
        credential = self.credential()
        if credential is None:
            return Answer(0, error="this host has no credential yet: it has not joined")
        headers = request_headers(credential.secret, credential.name, _PROBE)
        return await self.send("GET", API_PREFIX + _PROBE, headers, b"", timeout=_PROBE_TIMEOUT_S)
