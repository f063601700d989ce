"""A TCP relay that makes a network longer: every byte arrives half a round trip later, each way.

Stands in for the kernel's own ``netem`` where there is none. What a client sends on a new connection arrives
a whole round trip later still, which is what TCP's handshake takes. It takes as many bytes as come, up to
:data:`_IN_FLIGHT` on their way in each direction of a connection, which at 50 ms is far more than any host
of the benchmark sends.

Standard library only: ``relay.yaml`` mounts this file into a container and runs it.
Usage: ``python _relay.py PORT HOST:PORT ROUND_TRIP_MS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

__all__ = ["serve"]

_CHUNK = 64 * 1024
_IN_FLIGHT = 64 * 1024 * 1024
_MS = 1000

_Arrivals = asyncio.Queue[tuple[float, bytes]]


async def _depart(
    reader: asyncio.StreamReader, arrivals: _Arrivals, delay_s: float, not_before: float
) -> None:
    """Say of everything that comes when it is to arrive; an empty one is the end."""
    now = asyncio.get_running_loop().time
    while True:
        data = await reader.read(_CHUNK)
        await arrivals.put((max(now(), not_before) + delay_s, data))
        if not data:
            return


async def _arrive(arrivals: _Arrivals, writer: asyncio.StreamWriter) -> None:
    now = asyncio.get_running_loop().time
    while True:
        due, data = await arrivals.get()
        if (rest := due - now()) > 0:
            await asyncio.sleep(rest)
        if not data:
            writer.write_eof()
            return
        writer.write(data)
        await writer.drain()


async def _one_way(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float, not_before: float
) -> None:
    arrivals: _Arrivals = asyncio.Queue(_IN_FLIGHT // _CHUNK)
    async with asyncio.TaskGroup() as group:
        group.create_task(_depart(reader, arrivals, delay_s, not_before))
        group.create_task(_arrive(arrivals, writer))


async def serve(port: int, host: str, host_port: int, round_trip_s: float) -> asyncio.Server:
    """Start relaying from ``port`` (0: any that is free) on every IPv4 address to ``host:host_port``."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = asyncio.get_running_loop().time()
        try:
            there, back = await asyncio.open_connection(host, host_port)
        except OSError as error:
            print(f"relay: {host}:{host_port}: {error}", file=sys.stderr, flush=True)
            writer.close()
            return
        half = round_trip_s / 2
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_one_way(reader, back, half, began + round_trip_s))
                group.create_task(_one_way(there, writer, half, began))
        except* OSError:
            pass  # one side is gone: so is the connection
        finally:
            for end in (back, writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    return await asyncio.start_server(relay, "0.0.0.0", port)


async def _main(port: str, target: str, round_trip_ms: str) -> None:
    host, _, host_port = target.rpartition(":")
    server = await serve(int(port), host, int(host_port), float(round_trip_ms) / _MS)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
