"""Receives and sends the messages of calls, under the transit budget and time limits.

Unary methods are handled as client streams, on the same wire format. Such a handler runs before the call's message is
received; a unary handler would run after gRPC has buffered all of it.

gRPC's task of a call ends when the client's side has accepted the response. What the call holds is released then. A
stalled client is disconnected, since only then gRPC frees its response.
"""

from __future__ import annotations

import asyncio
from typing import Final

from electra_serve.api.grpc.call import Call, Context, address_of
from electra_serve.api.grpc.connections import PeerCalls
from electra_serve.api.grpc.core_operations import uncancelled
from electra_serve.api.grpc.message_reader import MessageReader
from electra_serve.api.grpc.receiver import Receiver
from electra_serve.api.sockets import disconnect, send_limit_s
from electra_serve.errors import Cancelled
from electra_serve.serving.transit_budget import Reservation, TransitBudget

# Seconds that a call waits to be received: a burst of small messages passes through within milliseconds
RESERVE_TIMEOUT_S: Final = 1.0
# Of a message in memory: its pieces and its bytes when it is received, its bytes and the parsed message later
COPIES: Final = 2
DRAIN_RECEIVE_S: Final = 1.0
DRAIN_MARGIN_S: Final = 1.0


class Transfer:
    """Moves messages between calls and their handlers.

    Receiving reserves `max_request_bytes`, since gRPC does not announce the length of a message. A client may stall for
    `send_timeout_s`. The event `idle` is set while no call is open.
    """

    def __init__(
        self,
        budget: TransitBudget,
        reader: MessageReader,
        *,
        max_request_bytes: int,
        receive_timeout_s: float,
        send_timeout_s: float,
        calls: PeerCalls,
    ) -> None:
        self.budget = budget
        self._max_request_bytes = max_request_bytes
        self._reader = reader
        self._receiver = Receiver(reader, receive_timeout_s)
        self._send_timeout_s = send_timeout_s
        self._calls = calls
        self._open_calls = 0
        self._sending: dict[asyncio.Task[object], str] = {}  # to which peer each task sends
        self.idle = asyncio.Event()
        self.idle.set()

    def drain(self, grace_s: float) -> None:
        """Ends transfers that clients delay: the server stops, and cancels what is left after `grace_s`.

        Messages have `DRAIN_RECEIVE_S` to arrive. Clients that have not accepted their response `DRAIN_MARGIN_S` before
        the end are disconnected.
        """
        self._receiver.drain(DRAIN_RECEIVE_S)
        asyncio.get_running_loop().call_later(max(grace_s - DRAIN_MARGIN_S, 0.0), self._disconnect_unread)

    def _disconnect_unread(self) -> None:
        for peer in set(self._sending.values()):
            _disconnect(peer)

    async def reserve(self, call: Call, copies: int = COPIES) -> Reservation:
        """Reserves room for `copies` of one request message, until the current task ends.

        Raises `Overloaded` if there was none within `RESERVE_TIMEOUT_S`.
        """
        self._count_open()
        reservation = await self.budget.acquire(call.client, copies * self._max_request_bytes, RESERVE_TIMEOUT_S)
        peer = call.context.peer()
        self._calls.begin(peer)

        def ended(_: object) -> None:
            reservation.release()
            self._calls.end(peer)

        _current_task().add_done_callback(ended)
        return reservation

    def _count_open(self) -> None:
        """Counts the current task as an open call until it ends."""
        self._open_calls += 1
        self.idle.clear()

        def ended(_: object) -> None:
            self._open_calls -= 1
            if not self._open_calls:
                self.idle.set()

        _current_task().add_done_callback(ended)

    async def receive(self, context: Context) -> bytes:
        """Returns the message of a unary call; raises what `Receiver.receive` raises."""
        return await self._receiver.receive(context)

    async def read_next(self, context: Context) -> bytes | None:
        """Returns the next message of a stream, whenever it arrives; None at its end."""
        return await uncancelled(self._reader.read(context))

    def limit_sending(self, context: Context, message: bytes) -> None:
        """Disconnects the client if it has not accepted the response `message` of the current call in time."""
        task, peer = _current_task(), context.peer()
        timer = asyncio.get_running_loop().call_later(self._send_timeout(message), _disconnect, peer)
        self._sending[task] = peer

        def sent(_: object) -> None:
            timer.cancel()
            del self._sending[task]

        task.add_done_callback(sent)

    async def send(self, context: Context, message: bytes) -> None:
        """Sends one response message of a stream; returns when the client's side has accepted it.

        Raises `Cancelled` if it did not accept it in time, and is disconnected.
        """
        task, peer = _current_task(), context.peer()
        self._sending[task] = peer
        timeout_s = self._send_timeout(message)
        try:
            async with asyncio.timeout(timeout_s):
                await uncancelled(context.write(message))
        except TimeoutError as error:
            _disconnect(peer)
            raise Cancelled(f"the client did not read its response within {timeout_s:.3g} s") from error
        finally:
            del self._sending[task]

    def _send_timeout(self, message: bytes) -> float:
        return send_limit_s(self._send_timeout_s, len(message))


def _disconnect(peer: str) -> None:
    """Closes the connection of a peer, on a thread: it looks through all open files."""
    address = address_of(peer)
    if address is not None:
        asyncio.get_running_loop().run_in_executor(None, disconnect, *address)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call must be handled in a task")
    return task
