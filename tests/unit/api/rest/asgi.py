"""The server's side of ASGI, driven by hand: one request, whose messages the test sends when it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Scope


def http_scope(path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Scope:
    """Messages of a server to an application about a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in ({"host": "rest.test"} | dict(headers or {})).items()
        ],
        "client": ("192.0.2.7", 50000),
        "server": ("127.0.0.1", 8080),
    }


class Wire:
    """The two ends of one request.

    Attributes:
        sent: Messages of the application.
    """

    def __init__(self, *messages: Message) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        for message in messages:
            self.push(message)

    def push(self, message: Message) -> None:
        """Has the client do something."""
        self._incoming.put_nowait(message)

    async def receive(self) -> Message:
        """The application's `receive`."""
        return await self._incoming.get()

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        self.sent.append(message)

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application."""
        await app(scope, self.receive, self.send)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def body_message(body: bytes, *, more: bool = False) -> Message:
    """Part of a request's body, or the last of it."""
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT: Message = {"type": "http.disconnect"}


async def settle() -> None:
    """Lets every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)
