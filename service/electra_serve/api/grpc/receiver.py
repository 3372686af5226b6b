"""Receives messages of calls within limits of time and number.

gRPC does not announce the length of a message, buffers all of it, and cannot stop receiving it. Only the end of the
call frees the buffer. So a limit ends the call that exceeds it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from electra_serve.api.grpc.call import Context, host_of
from electra_serve.api.grpc.core_operations import uncancelled
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.errors import MalformedRequest, Overloaded, PayloadTooLarge, ShuttingDown

# A small message arrives with the head of its call. One that takes longer makes room for others of its address.
ARRIVES_WITHIN_S: Final = 0.15
MAX_WAIT_S: Final = 1.0
RETRY_AFTER_S: Final = 0.1  # for a call that had to make room: the next one may be received at once


@dataclass(eq=False, slots=True)
class _Reception:
    """A message that is being received."""

    address: str
    began_s: float  # on the event loop's clock
    timeout: asyncio.Timeout
    evicted: bool = False  # it had to make room
    arrived: bool = False  # complete, and about to be read
    awaited: bool = True  # by a call; if its client has left, only gRPC may still read it


class Receiver:
    """Receives messages of at most `max_bytes`, each within `timeout_s`, and `max_concurrent` at a time.

    At that limit, the address that receives most makes room for others with its oldest message. It makes room for
    itself once that is `ARRIVES_WITHIN_S` old. So calls whose messages never end keep no others out.
    """

    def __init__(
        self,
        reader: MessageReader,
        timeout_s: float,
        *,
        max_concurrent: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._reader = reader
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._receiving: dict[_Reception, None] = {}  # the oldest first
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ended = asyncio.Event()
        self._draining = False

    @property
    def receiving(self) -> int:
        """Number of messages that are being received."""
        return len(self._receiving)

    def drain(self, within_s: float) -> None:
        """Limits messages to `within_s` from now on, those being received included."""
        self._draining = True
        self._timeout_s = min(self._timeout_s, within_s)
        for reception in self._receiving:
            _shorten(reception, within_s)

    async def receive(self, context: Context) -> bytes:
        """Returns the one message of a call; raises as `receive_next`, and `MalformedRequest` if there is none."""
        message = await self.receive_next(context)
        if message is None:
            raise MalformedRequest("a call must have one message; received none")
        return message

    async def receive_next(self, context: Context) -> bytes | None:
        """Returns the next message of a stream; None at its end.

        Raises:
            MalformedRequest: It did not arrive in time.
            Overloaded: It made room for messages of others, or there was no room.
            PayloadTooLarge: It has more than `max_bytes`.
            ShuttingDown: It had not arrived when the server stopped.
        """
        if self._max_concurrent is not None:
            await self._wait_for_room(context.peer(), self._max_concurrent)
        timeout = asyncio.timeout(self._timeout_s)
        reception = _Reception(host_of(context.peer()), asyncio.get_running_loop().time(), timeout)
        try:
            async with timeout:
                message = await uncancelled(self._read(context, reception))
        except TimeoutError as error:
            raise self._failure(reception) from error
        finally:
            reception.awaited = False
        if self._max_bytes is not None and message is not None and len(message) > self._max_bytes:
            size = len(message)
            del message  # gRPC keeps the error for a while, and its traceback would keep the message
            raise PayloadTooLarge(f"a message must be at most {self._max_bytes} bytes; got {size}")
        return message

    def _read(self, context: Context, reception: _Reception) -> asyncio.Task[bytes | None]:
        """Reads a message, which counts until gRPC has let go of it."""

        def arrived() -> None:
            reception.arrived = True

        def ended(_: object) -> None:
            del self._receiving[reception]
            self._ended.set()

        reading = asyncio.create_task(self._reader.read(context, arrived))
        self._receiving[reception] = None
        reading.add_done_callback(ended)
        return reading

    async def _wait_for_room(self, peer: str, limit: int) -> None:
        """Waits in line with other calls of the connection."""
        try:
            async with asyncio.timeout(MAX_WAIT_S), self._lines.setdefault(peer, asyncio.Lock()):
                while len(self._receiving) >= limit:
                    await self._make_room(host_of(peer))
        except TimeoutError as error:
            raise Overloaded(
                f"{limit} messages of health and reflection are being received; try again", retry_after_s=RETRY_AFTER_S
            ) from error

    async def _make_room(self, address: str) -> None:
        """Waits until a message has ended; ends one of the address that receives most if it may."""
        self._ended.clear()
        received = Counter(reception.address for reception in self._receiving)
        arriving = [reception for reception in self._receiving if not (reception.evicted or reception.arrived)]
        oldest = max(arriving, key=lambda reception: received[reception.address], default=None)
        wait_s = ARRIVES_WITHIN_S
        if oldest is not None:
            wait_s = oldest.began_s + ARRIVES_WITHIN_S - asyncio.get_running_loop().time()
            if received[address] < received[oldest.address] or wait_s <= 0.0:
                oldest.evicted = True
                _shorten(oldest, 0.0)
                wait_s = ARRIVES_WITHIN_S
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), wait_s)

    def _failure(self, reception: _Reception) -> MalformedRequest | Overloaded | ShuttingDown:
        if reception.evicted:
            return Overloaded(
                "the call made room for others, because its message had not arrived; try again",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._draining:
            return ShuttingDown("the server is shutting down; the message had not arrived")
        return MalformedRequest(f"a message must arrive within {self._timeout_s:g} s")


def _shorten(reception: _Reception, within_s: float) -> None:
    timeout, until = reception.timeout, asyncio.get_running_loop().time() + within_s
    if reception.awaited and not timeout.expired():  # one that has ended, or just expires, cannot be changed
        timeout.reschedule(min(timeout.when() or until, until))
