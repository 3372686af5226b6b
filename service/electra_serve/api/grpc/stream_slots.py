"""Limits on streams that stay open and need no key: watches of health, and reflection.

An open stream costs about 20 KB. Their number is limited for each connection, for each address and in total. So no
client can use all of them, and all fit into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Clients with health checking watch each service that they call, and there are three names
MAX_PER_CONNECTION: Final = 16
MAX_PER_ADDRESS: Final = 1024
MAX_STREAMS: Final = 4096  # about 90 MB


class TooManyStreams(Exception):
    """A limit on open streams is reached; the text says which."""


class StreamSlots:
    """Counts open streams of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._held: Counter[str] = Counter()  # by connection, by address, and "" for all

    @property
    def held(self) -> int:
        """Number of open streams."""
        return self._held[""]

    @contextmanager
    def hold(self, peer: str) -> Iterator[None]:
        """Holds a slot for as long as the context lasts; raises `TooManyStreams` at a limit."""
        limits = (
            (peer, MAX_PER_CONNECTION, "a connection"),
            (peer.rpartition(":")[0], MAX_PER_ADDRESS, "an address"),
            ("", MAX_STREAMS, "the server"),
        )
        for scope, limit, name in limits:
            if self._held[scope] >= limit:
                raise TooManyStreams(f"{name} may have at most {limit} {self._kind} open; close one first")
        scopes = [scope for scope, _, _ in limits]
        self._held.update(scopes)
        try:
            yield
        finally:
            for scope in scopes:
                self._release(scope)

    def _release(self, scope: str) -> None:
        self._held[scope] -= 1
        if not self._held[scope]:
            del self._held[scope]
