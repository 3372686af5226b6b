"""Answers made of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from electra_serve.api.rest.body import JSON_MEDIA_TYPE


def json_response(content: object) -> Response:
    """Answers with plain values, dataclasses and enums."""
    return Response(orjson.dumps(content), media_type=JSON_MEDIA_TYPE)


class JsonChunks(Response):
    """Answers with JSON that is written already, in one chunk or more.

    The length is known, so the chunks need no framing of their own; and each waits until the socket has taken
    the one before, so a large answer is in memory once.

    Args:
        chunks: The body, cut anywhere.
        send_timeout_s: Seconds that the client has to take each; then the connection is given up, and with it
            the memory of what was not taken.
    """

    media_type = JSON_MEDIA_TYPE

    def __init__(self, chunks: Sequence[bytes], *, send_timeout_s: float) -> None:
        super().__init__(headers={"content-length": str(sum(map(len, chunks)))})
        self._chunks = chunks
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Sends the answer.

        Raises:
            TimeoutError: The client does not take it; the server then closes the connection.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = len(self._chunks) - 1
        for index, chunk in enumerate(self._chunks):
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": chunk, "more_body": index < last})
