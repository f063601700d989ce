"""The relay adds a round trip, keeps what passes as it is, and ends connections as they end."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bench._relay import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_ROUND_TRIP_S = 0.04


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    writer.close()


async def _digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(hashlib.sha256(await reader.read()).digest())
    writer.close()


@asynccontextmanager
async def _through(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    target = await asyncio.start_server(handler, "127.0.0.1", 0)
    relay = await serve(0, "127.0.0.1", target.sockets[0].getsockname()[1], _ROUND_TRIP_S)
    async with target, relay:
        port = relay.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


def test_answer_takes_a_round_trip_and_the_first_one_the_handshakes_too():
    async def times() -> list[float]:
        now = asyncio.get_running_loop().time
        began = now()
        taken = []
        async with _through(_echo) as (reader, writer):
            for _ in range(3):
                writer.write(b"ping")
                assert await reader.readexactly(4) == b"ping"
                taken.append(now() - began)
                began = now()
        return taken

    first, *others = asyncio.run(times())
    assert first >= 2 * _ROUND_TRIP_S
    assert all(one >= _ROUND_TRIP_S for one in others)


def test_much_at_once_takes_no_round_trip_for_each_piece():
    """16 MiB are 256 pieces: one after the other they would take 256 round trips."""
    sent = random.Random(7).randbytes(16 * 1024 * 1024)

    async def send() -> tuple[bytes, float]:
        now = asyncio.get_running_loop().time
        async with _through(_digest) as (reader, writer):
            began = now()
            writer.write(sent)
            writer.write_eof()
            return await reader.read(), now() - began

    got, seconds = asyncio.run(send())
    assert got == hashlib.sha256(sent).digest()
    assert seconds < 256 * _ROUND_TRIP_S


def test_end_of_one_side_reaches_the_other():
    async def close() -> bytes:
        async with _through(_echo) as (reader, writer):
            writer.write(b"last words")
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(close()) == b"last words"


def test_target_that_is_not_there_ends_the_connection():
    async def ask() -> bytes:
        gone = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port = gone.sockets[0].getsockname()[1]
        gone.close()
        relay = await serve(0, "127.0.0.1", port, _ROUND_TRIP_S)
        async with relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.sockets[0].getsockname()[1])
            try:
                return await reader.read()
            finally:
                writer.close()

    assert asyncio.run(ask()) == b""
