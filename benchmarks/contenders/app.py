"""The HTTP layer of the onnxruntime services: bare ASGI on uvicorn, which costs little."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import uvicorn

from benchmarks.contenders.wire import PATH, READY_PATH, Asked, decode, render
from electra_serve.tensors import RowOutput

Encode = Callable[[Asked], Awaitable[Sequence[RowOutput]]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class EncodeApp:
    """Serves `POST /v1/encode` and `GET /readyz`.

    Args:
        start: Called on the event loop when the server starts; returns the encoding function.
    """

    def __init__(self, start: Callable[[], Encode]) -> None:
        self._start = start
        self._encode: Encode

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == PATH:
            asked = decode(await _body(receive))
            await _answer(send, 200, render(await self._encode(asked), asked.outputs))
        else:
            await _answer(send, 200 if scope["path"] == READY_PATH else 404, b"{}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._encode = self._start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


def serve(start: Callable[[], Encode], port: int) -> None:
    """Serves until a signal comes."""
    uvicorn.run(
        EncodeApp(start),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


def port_flag() -> int:
    """Returns the port of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    return port


async def _body(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
