"""Limits gRPC's connections.

gRPC's core closes new connections over `grpc.max_allowed_incoming_connections` before their handshake, but keeps older
ones even if they are idle. So this watches the sockets of the port, and closes idle ones from half of the limit on. The
other half is for connections with calls, and for those that arrive between two scans. `ConnectionTable` decides.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from electra_serve.api.connections import Connection, ConnectionTable, Phase
from electra_serve.api.grpc.call import address_of
from electra_serve.api.sockets import ClientSockets, Peer

INTERVAL_S: Final = 0.25  # seconds between two scans


def kept_free_of(limit: int) -> int:
    """Returns the part of `limit` that idle connections may not use."""
    return limit // 2


class PeerCalls:
    """Counts the open calls of each connection."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._recent: set[str] = set()

    def begin(self, peer: str) -> None:
        """Counts a call of a connection, as gRPC names it."""
        self._open[peer] += 1
        self._recent.add(peer)

    def end(self, peer: str) -> None:
        """Counts the end of a call."""
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]

    @property
    def open(self) -> set[Peer]:
        """Connections with an open call."""
        return set(_peers(self._open))

    def take_recent(self) -> set[Peer]:
        """Returns the connections with a new call since this was last asked."""
        recent, self._recent = self._recent, set()
        return set(_peers(recent))


def _peers(names: Collection[str]) -> Iterator[Peer]:
    return (peer for name in names if (peer := address_of(name)) is not None)


class ConnectionWatch:
    """Keeps the table of the connections up to date, and closes those that it chooses."""

    def __init__(self, table: ConnectionTable, calls: PeerCalls) -> None:
        self._table = table
        self._calls = calls
        self._known: dict[Peer, Connection | None] = {}  # None: not admitted, and about to close
        self._working: set[Peer] = set()
        self._closing: list[Peer] = []
        self._watching: asyncio.Task[None] | None = None

    def start(self, local_port: int) -> None:
        """Starts to watch the connections to a port of this process."""
        self._watching = asyncio.create_task(self._watch(ClientSockets(local_port)))

    def stop(self) -> None:
        """Ends watching."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, sockets: ClientSockets) -> None:
        loop = asyncio.get_running_loop()
        with _one_thread() as thread:
            while True:
                await asyncio.sleep(INTERVAL_S)
                closing = self.update((await loop.run_in_executor(thread, sockets.scan)).keys())
                if closing:
                    await loop.run_in_executor(thread, sockets.shut_down, closing)

    def update(self, peers: Set[Peer]) -> list[Peer]:
        """Takes the peers that are connected now, and returns those to disconnect."""
        for peer in self._known.keys() - peers:
            self._forget(peer)
        self._update_phases()
        for peer in peers - self._known.keys():
            self._admit(peer)
        closing, self._closing = self._closing, []
        return closing

    def _update_phases(self) -> None:
        working, recent = self._calls.open, self._calls.take_recent()
        for peer in working | recent:
            self._move(peer, Phase.WORKING)
        for peer in (self._working | recent) - working:
            self._move(peer, Phase.IDLE)
        self._working = working

    def _move(self, peer: Peer, phase: Phase) -> None:
        connection = self._known.get(peer)
        if connection is not None:
            self._table.move(connection, phase)

    def _admit(self, peer: Peer) -> None:
        connection = self._table.admit(peer[0], lambda: self._closing.append(peer))
        self._known[peer] = connection
        if connection is None:
            self._closing.append(peer)
        elif peer in self._working:
            self._table.move(connection, Phase.WORKING)

    def _forget(self, peer: Peer) -> None:
        connection = self._known.pop(peer)
        if connection is not None:
            self._table.remove(connection)


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread of its own: those of the event loop may be busy with requests."""
    thread = ThreadPoolExecutor(1, "grpc-connections")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False)
