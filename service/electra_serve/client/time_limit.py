"""Limits the total time of blocking HTTP calls.

httpx limits each socket operation alone, so a server that sends one byte a second never exceeds its timeout. Here each
operation gets the time that is left. httpcore reads the timeout of a phase from a request's `timeout` extension. It
passes the stream of each new connection to the `trace` extension.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

PIECE_BYTES: Final = 16_384  # most bytes written with one timeout
MIN_TIMEOUT_S: Final = 1e-3  # A timeout of 0 would make a socket non-blocking

_CONNECTED: Final = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
# End of this thread's call, in seconds of `time.monotonic`
_until_s: ContextVar[float | None] = ContextVar("electra_until_s", default=None)


@contextmanager
def time_limit(timeout_s: float) -> Iterator[dict[str, Any]]:
    """Limits the total seconds of the calls inside, which then raise `httpx.TimeoutException`.

    Yields:
        Extensions for each request.
    """
    token = _until_s.set(time.monotonic() + timeout_s)
    try:
        yield {"timeout": _PhaseTimeouts(), "trace": _limit_stream}
    finally:
        _until_s.reset(token)


class _PhaseTimeouts(Mapping[str, float | None]):
    """Timeout of each phase of a request: the time left at its start."""

    def __getitem__(self, phase: str) -> float | None:
        return _remaining_s(None)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "pool", "read", "write"))

    def __len__(self) -> int:
        return 4


def _remaining_s(timeout_s: float | None) -> float | None:
    until_s = _until_s.get()
    if until_s is None:  # a call that is not ours shares the connection
        return timeout_s
    return max(until_s - time.monotonic(), MIN_TIMEOUT_S)


def _limit_stream(event: str, info: Mapping[str, Any]) -> None:
    if event.endswith(_CONNECTED):
        stream = info["return_value"]
        stream.read = partial(_read, stream.read)
        stream.write = partial(_write, stream.write)


def _read(read: Callable[..., bytes], max_bytes: int, timeout: float | None = None) -> bytes:
    return read(max_bytes, timeout=_remaining_s(timeout))


def _write(write: Callable[..., None], buffer: bytes, timeout: float | None = None) -> None:
    for start in range(0, len(buffer), PIECE_BYTES):
        write(buffer[start : start + PIECE_BYTES], timeout=_remaining_s(timeout))
