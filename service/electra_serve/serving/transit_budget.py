"""Budget for the bytes in transit, shared by both transports. Event loop only.

In transit are requests being received, decoded requests and unsent responses. A request holds one `Reservation` from
before its body is read until its last byte is sent: first for the declared body, then for the response.
As in the queue (`batching/admission.py`), a client that holds bytes may hold at most `SHARE` times the free ones.
An idle reservation of an open stream is reclaimed for a client that holds less. See docs/decisions/0023.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from electra_serve.errors import Overloaded

SHARE: Final = 4
RATE_WINDOW_S: Final = 2.0  # seconds over which the release rate is averaged
GROWTH_TIMEOUT_S: Final = 5.0  # seconds that an admitted request waits for its response's bytes
MAX_WAITERS: Final = 1024  # in one line; each takes up to 90 kB in gRPC
RECLAIM_AFTER_S: Final = 1.0  # seconds after which an unused reservation is idle
MIN_RETRY_S: Final = 0.05
# Retry delay if nothing was released recently; stalled clients release their bytes at a time limit
MAX_RETRY_S: Final = 5.0

_WaitingLine: TypeAlias = tuple[str, bool]  # client, and True for requests that already hold bytes


class TransitBudget:
    """Limits the bytes in transit of the process to `max_bytes`.

    Example:
        >>> budget = TransitBudget(100, now=lambda: 0.0)
        >>> with budget.reserve("a", 60) as reservation:
        ...     budget.used_bytes
        60
        >>> budget.used_bytes
        0
    """

    def __init__(self, max_bytes: int, now: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._now = now
        self._clients: dict[str, int] = {}
        self._lines: dict[
            _WaitingLine, dict[asyncio.Future[None], tuple[int, int]]
        ] = {}  # size and `already_held` of each
        self._idle: dict[
            Reservation, tuple[float, Callable[[], None]]
        ] = {}  # idle since, and a function that frees it; oldest first
        self._released = 0.0  # bytes, decayed over RATE_WINDOW_S
        self._released_at = now()

    def reserve(self, client: str, size: int) -> Reservation:
        """Reserves `size` bytes, at most the whole budget; raises `Overloaded` if they do not fit now.

        It waits for nothing, so it may pass requests that wait in `acquire`.
        """
        size = min(size, self.max_bytes)
        self._make_room(client, size)
        if not self._fits(client, size):
            raise self._overloaded(client, size)
        self._add(client, size)
        return Reservation(self, client, size)

    async def acquire(self, client: str, size: int, timeout_s: float | None, *, already_held: int = 0) -> Reservation:
        """Reserves `size` bytes as soon as they fit; clients take turns.

        Args:
            client: Client that is charged.
            size: Bytes, at most the whole budget.
            timeout_s: Seconds to wait; None for no limit.
            already_held: Bytes that the same request already holds; they do not count in its client's share.

        Raises:
            Overloaded: They did not fit within `timeout_s`.
        """
        size = min(size, self.max_bytes - already_held)
        if not already_held:
            self._make_room(client, size)
        if self._lines or not self._fits(client, size, already_held):
            await self._wait(client, size, timeout_s, already_held)
        else:
            self._add(client, size)
        return Reservation(self, client, size)

    async def _wait(self, client: str, size: int, timeout_s: float | None, already_held: int) -> None:
        """Waits until `_wake` has reserved the bytes."""
        line = (client, already_held > 0)
        waiters = self._lines.setdefault(line, {})
        if len(waiters) >= MAX_WAITERS:
            raise self._overloaded(client, size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters[turn] = (size, already_held)
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(client, size)
            else:
                self._leave(line, turn)
                self._wake()
            if isinstance(error, TimeoutError):
                raise self._overloaded(client, size) from None
            raise

    def _leave(self, line: _WaitingLine, turn: asyncio.Future[None]) -> None:
        waiters = self._lines.get(line, {})
        waiters.pop(turn, None)  # a canceled one may have left already
        if not waiters:
            self._lines.pop(line, None)

    def _fits(self, client: str, size: int, already_held: int = 0) -> bool:
        in_other_requests = self._clients.get(client, 0) - already_held
        free = self.max_bytes - self.used_bytes - size
        return free >= 0 and (not in_other_requests or in_other_requests + already_held + size <= SHARE * free)

    def _add(self, client: str, size: int) -> None:
        self.used_bytes += size
        self._clients[client] = self._clients.get(client, 0) + size

    def give_back(self, client: str, size: int) -> None:
        """Releases bytes, for waiting requests first."""
        self.used_bytes -= size
        held = self._clients[client] - size
        if held:
            self._clients[client] = held
        else:
            del self._clients[client]
        self._released = self._rate() * RATE_WINDOW_S + size
        self._released_at = self._now()
        self._wake()

    def _wake(self) -> None:
        """Reserves bytes for waiting requests, one of each line in turn.

        A request that waits for its client's share blocks no other. One whose client holds nothing else blocks the
        lines behind it, so that small requests do not starve a large one.
        """
        progress = True
        while progress:
            progress = False
            for line in list(self._lines):
                client, _ = line
                turn, (size, already_held) = next(iter(self._lines[line].items()))
                if turn.done() or self._fits(client, size, already_held):
                    self._leave(line, turn)
                    self._move_back(line)
                    if not turn.done():
                        self._add(client, size)
                        turn.set_result(None)
                    progress = True
                elif self._clients.get(client, 0) == already_held:
                    return

    def _move_back(self, line: _WaitingLine) -> None:
        if line in self._lines:
            self._lines[line] = self._lines.pop(line)

    @contextmanager
    def reclaimable(self, reservation: Reservation, reclaim: Callable[[], None]) -> Iterator[None]:
        """Makes a reservation reclaimable within the context; `reclaim` releases it and ends its stream."""
        self._idle[reservation] = (self._now(), reclaim)
        try:
            yield
        finally:
            self._idle.pop(reservation, None)

    def _make_room(self, client: str, size: int) -> None:
        """Reclaims idle reservations of clients that hold more, until `size` bytes fit."""
        while not self._fits(client, size):
            held, limit = self._clients.get(client, 0), self._now() - RECLAIM_AFTER_S
            idle = [found for found, (since, _) in self._idle.items() if since <= limit]
            victim = max(idle, key=lambda found: self._clients[found.client], default=None)
            if victim is None or self._clients[victim.client] <= held:
                return
            _, reclaim = self._idle.pop(victim)
            reclaim()

    def _rate(self) -> float:
        """Returns the average bytes released per second."""
        elapsed_s = self._now() - self._released_at
        return self._released * math.exp(-elapsed_s / RATE_WINDOW_S) / RATE_WINDOW_S

    def _overloaded(self, client: str, size: int) -> Overloaded:
        rate = self._rate()
        retry_s = size / rate if rate else MAX_RETRY_S
        return Overloaded(
            f"cannot reserve {size} bytes for this request: {self.used_bytes} of {self.max_bytes} are in use, "
            f"{self._clients.get(client, 0)} by this client, which may hold at most {SHARE} times the free bytes",
            retry_after_s=min(max(retry_s, MIN_RETRY_S), MAX_RETRY_S),
        )


class Reservation:
    """Bytes that one request holds; a second release does nothing."""

    __slots__ = ("_budget", "client", "size")

    def __init__(self, budget: TransitBudget, client: str, size: int) -> None:
        self._budget = budget
        self.client = client
        self.size = size

    def shrink(self, size: int) -> None:
        """Releases all but `size` bytes."""
        if size < self.size:
            self._budget.give_back(self.client, self.size - size)
            self.size = size

    async def resize(self, size: int, *, timeout_s: float = GROWTH_TIMEOUT_S) -> None:
        """Changes the size, after additional bytes fit; raises `Overloaded` after `timeout_s`."""
        size = min(size, self._budget.max_bytes)
        self.shrink(size)
        if size > self.size:
            await self._budget.acquire(self.client, size - self.size, timeout_s, already_held=self.size)
            self.size = size

    def release(self) -> None:
        """Releases all bytes."""
        self.shrink(0)

    def release_after(self, task: asyncio.Task[Any]) -> None:
        """Releases all bytes after `task`, even if it is canceled before its first step."""
        task.add_done_callback(lambda _: self.release())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class Transit:
    """A request's reservation, and the bytes of each number in its response."""

    reservation: Reservation
    bytes_per_value: int

    async def reserve_response(self, values: int) -> None:
        """Reserves bytes for a response of `values` numbers; raises `Overloaded` after `GROWTH_TIMEOUT_S`."""
        await self.reservation.resize(self.reservation.size + values * self.bytes_per_value)
