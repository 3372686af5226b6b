"""Receives messages of calls within limits of time and number.

gRPC does not announce how long a message is, buffers all of it, and cannot stop receiving it: only the end of the call
frees what has arrived. So a limit ends the call that exceeds it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from electra_serve.api.grpc.call import Context, host_of
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.errors import MalformedRequest, Overloaded, ShuttingDown

RETRY_AFTER_S: Final = 0.1
"""For a call that had to make room: the next one is received at once."""


class Receiver:
    """Receives messages, each within a time limit.

    Args:
        reader: Reads the messages.
        timeout_s: Seconds for a message to arrive.
        max_concurrent: Most messages that are received at a time; None: no limit. At the limit a newcomer is received
            all the same, and the address that receives most makes room with its oldest message. So calls whose messages
            never end keep no others out, and what clients send with the head of a call has arrived by then.
    """

    def __init__(self, reader: MessageReader, timeout_s: float, *, max_concurrent: int | None = None) -> None:
        self._reader = reader
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._receiving: dict[asyncio.Timeout, str] = {}  # the address of each, the oldest first
        self._draining = False

    @property
    def receiving(self) -> int:
        """Number of messages that are being received."""
        return len(self._receiving)

    def drain(self, within_s: float) -> None:
        """Limits messages to `within_s` from now on, those being received included."""
        self._draining = True
        self._timeout_s = min(self._timeout_s, within_s)
        for timeout in self._receiving:
            _shorten(timeout, within_s)

    async def receive(self, context: Context) -> bytes:
        """Returns the one message of a call.

        Raises:
            MalformedRequest: It did not arrive in time, or there is none.
            Overloaded: It made room for messages of others.
            ShuttingDown: It had not arrived when the server stopped.
        """
        message = await self.receive_next(context)
        if message is None:
            raise MalformedRequest("a call must have one message; received none")
        return message

    async def receive_next(self, context: Context) -> bytes | None:
        """Returns the next message of a stream; None at its end.

        Raises:
            MalformedRequest: It did not arrive in time.
            Overloaded: It made room for messages of others.
            ShuttingDown: It had not arrived when the server stopped.
        """
        if self._max_concurrent is not None and len(self._receiving) >= self._max_concurrent:
            self._make_room()
        timeout = asyncio.timeout(self._timeout_s)
        try:
            async with timeout:
                self._receiving[timeout] = host_of(context.peer())
                return await self._reader.read(context)
        except TimeoutError as error:
            raise self._failure(timeout) from error
        finally:
            self._receiving.pop(timeout, None)

    def _make_room(self) -> None:
        """Ends the oldest message of the address that receives most."""
        of_address = Counter(self._receiving.values())
        most = max(of_address.values())
        oldest = next(timeout for timeout, address in self._receiving.items() if of_address[address] == most)
        del self._receiving[oldest]
        _shorten(oldest, 0.0)

    def _failure(self, timeout: asyncio.Timeout) -> MalformedRequest | Overloaded | ShuttingDown:
        if timeout not in self._receiving:
            return Overloaded(
                "the call made room for others, because its message had not arrived; try again",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._draining:
            return ShuttingDown("the server is shutting down; the message had not arrived")
        return MalformedRequest(f"a message must arrive within {self._timeout_s:g} s")


def _shorten(timeout: asyncio.Timeout, within_s: float) -> None:
    until = asyncio.get_running_loop().time() + within_s
    if not timeout.expired():  # one that just expires cannot be changed
        timeout.reschedule(min(timeout.when() or until, until))
