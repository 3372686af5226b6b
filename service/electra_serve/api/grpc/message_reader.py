"""Reads the messages of calls, with pauses between large ones.

grpcio copies a message three times when the task that reads it resumes: 1 to 2 ms of the event loop for 4 MB. Large
messages that are complete at the same time would delay everything else by all of their copies. So after
`MAX_COPIED_BYTES` the event loop has time for everything else before the next message is copied.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from electra_serve.api.grpc.call import Context

T = TypeVar("T")

# Bytes after which no message is copied before a pause; the last message may exceed it
MAX_COPIED_BYTES: Final = 262_144
BYTES_PER_S: Final = 2**30  # copied bytes per second of a pause: 4 MB, which take 1 to 2 ms, are followed by 4 ms


class MessageReader:
    """Reads messages of one event loop's calls."""

    def __init__(self) -> None:
        self._copied = 0
        self._pause: asyncio.Future[None] | None = None

    async def read(self, context: Context, arrived: Callable[[], None] = lambda: None) -> bytes | None:
        """Returns the next message of a call, or None at their end. Must not be cancelled: see `core_operations`."""

        async def pause() -> None:
            arrived()
            await self._paused()

        message: object = await _resume_after(pause, context.read())
        if not isinstance(message, bytes):  # grpc.aio.EOF
            return None
        if not self._copied:
            asyncio.get_running_loop().call_soon(self._begin_pause)
        self._copied += len(message)
        return message

    async def _paused(self) -> None:
        while self._copied >= MAX_COPIED_BYTES:
            if self._pause is None:
                self._pause = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._pause)

    def _begin_pause(self) -> None:
        if self._copied < MAX_COPIED_BYTES:
            self._end_pause()
        else:
            asyncio.get_running_loop().call_later(self._copied / BYTES_PER_S, self._end_pause)

    def _end_pause(self) -> None:
        pause, self._pause = self._pause, None
        self._copied = 0
        if pause is not None:
            pause.set_result(None)


@types.coroutine
def _resume_after(
    pause: Callable[[], Coroutine[Any, None, None]], operation: Coroutine[Any, None, T]
) -> Generator[Any, None, T]:
    """Runs `operation`, and awaits `pause` before each time that it resumes."""
    try:
        while True:
            yield operation.send(None)
            yield from pause().__await__()
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        operation.close()
