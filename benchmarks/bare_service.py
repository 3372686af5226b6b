"""The upper limit of the null service: `python -m benchmarks.bare_service` has its responses without its work.

An ASGI application under uvicorn and a handler under grpc.aio read the request and send as many fixed bytes as the
service would. Everything above this is the service's own cost.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
import uvicorn
import uvloop

REST_ANSWER: Final = b"x" * 2_900
"""256 float32 as JSON."""
GRPC_ANSWER: Final = b"x" * 1_090
"""The same as bytes, with their metadata."""
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def answer_http(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:  # noqa: ARG001  # ASGI's signature
    """Reads the body and sends the response."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REST_ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": REST_ANSWER})


async def _answer_grpc(_: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return GRPC_ANSWER


async def _serve(rest_port: int, grpc_port: int) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Encode": grpc.unary_unary_rpc_method_handler(_answer_grpc)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("electra.v1.EncoderService", methods),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    config = uvicorn.Config(
        answer_http,
        port=rest_port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    http = asyncio.create_task(uvicorn.Server(config).serve())
    await http
    await server.stop(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    flags = parser.parse_args(argv)
    uvloop.run(_serve(flags.rest_port, flags.grpc_port))


if __name__ == "__main__":
    main()
