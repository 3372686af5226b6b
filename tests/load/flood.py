"""One request over many connections at a time, again and again: `python -m tests.load.flood REST_PORT GRPC_PORT …`.

A process of its own, so that it shares no lock with what measures meanwhile.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import uvloop

from tests.integration.process import ROOT, ServiceProcess
from tests.load.callers import ENCODE_METHOD, HOST

CONNECTIONS: Final = 64
METHODS: Final = {"grpc": ENCODE_METHOD, "health": "/grpc.health.v1.Health/Check"}
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


@contextmanager
def flood(process: ServiceProcess, transport: str, request: Path, api_key: str) -> Iterator[None]:
    """Sends the request for as long as the context lasts.

    Args:
        process: Where to.
        transport: `rest`, `grpc`, or `health` for gRPC's own method.
        request: File of a body or a message.
        api_key: The client's.
    """
    port = process.rest_port if transport == "rest" else process.grpc_port
    command = [sys.executable, "-m", __name__, transport, str(port), api_key, str(request)]
    with subprocess.Popen(command, cwd=ROOT) as popen:
        try:
            yield
            assert popen.poll() is None, "the flood goes on"
        finally:
            popen.kill()


async def _post(port: int, api_key: str, body: bytes) -> None:
    """Sends to one connection; reads each response in full."""
    head = (
        f"POST /v1/encode HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api_key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    while True:
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                while True:
                    writer.write(head.encode() + body)
                    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                    await writer.drain()
            finally:
                writer.close()


async def _call(port: int, api_key: str, message: bytes, method: str) -> None:
    """Calls over one connection."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", OPTIONS) as channel:
        encode: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        while True:
            with suppress(grpc.aio.AioRpcError):
                await encode(message, metadata=(("authorization", f"Bearer {api_key}"),))


async def _flood(transport: str, port: str, api_key: str, request: str) -> None:
    data = Path(request).read_bytes()  # noqa: ASYNC240  # nothing runs yet
    send = _post if transport == "rest" else partial(_call, method=METHODS[transport])
    await asyncio.gather(*(send(int(port), api_key, data) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    uvloop.run(_flood(*sys.argv[1:]))
