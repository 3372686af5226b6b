"""TCP addresses and connections of this process."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, TypeAlias

from electra_serve.errors import StartupError

Peer: TypeAlias = tuple[str, int]  # A client's IP address and port
OPEN_FILES: Final = Path("/proc/self/fd")
# Bytes per second that a client must accept of a response, after the time that it may stall
MIN_SEND_RATE: Final = 2**20


def send_limit_s(stall_s: float, size: int) -> float:
    """Returns the seconds that a client has to accept `size` bytes; it may stall for `stall_s` of them."""
    return stall_s + size / MIN_SEND_RATE


def listen(transport: str, host: str, port: int) -> socket.socket:
    """Opens a listening socket; host `::` accepts IPv4 too, and port 0 is a free one.

    Raises `StartupError`, which names the transport, if the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is named. Otherwise a response that is written in two
    # parts waits 40 ms for the client's delayed ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartupError(f"{transport} cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def disconnect(host: str, port: int) -> bool:
    """Shuts down this process' TCP connections with a peer; returns False if there is none.

    gRPC keeps a response that the client does not read until the connection closes, and has no function to close it.
    """
    found = False
    for connection in _connections():
        peer_host, peer_port = connection.getpeername()[:2]
        if peer_port == port and _plain_address(peer_host) == _plain_address(host):
            shut_down_quietly(connection)
            found = True
    return found


def disconnect_clients(local_port: int) -> None:
    """Shuts down the TCP connections that clients of `local_port` have with this process."""
    for connection in _connections():
        if connection.getsockname()[1] == local_port:
            shut_down_quietly(connection)


class ClientSockets:
    """TCP connections that clients of one port have with this process.

    gRPC's core does not expose its sockets. A scan costs one system call for each known descriptor.
    """

    def __init__(self, local_port: int) -> None:
        self._local_port = local_port
        self._known: dict[int, tuple[tuple[int, int], Peer | None]] = {}  # by descriptor: its file, and the client
        self._descriptors: dict[Peer, int] = {}

    def scan(self) -> dict[Peer, int]:
        """Returns the descriptor of each client's connection."""
        known, self._known = self._known, {}
        for name in os.listdir(OPEN_FILES):  # noqa: PTH208  # names are all that is needed
            descriptor = int(name)
            with contextlib.suppress(OSError):  # closed meanwhile
                status = os.fstat(descriptor)
                file, (before, peer) = (status.st_dev, status.st_ino), known.get(descriptor, (None, None))
                self._known[descriptor] = (file, peer if file == before else self._client_of(descriptor))
        self._descriptors = {peer: descriptor for descriptor, (_, peer) in self._known.items() if peer is not None}
        return self._descriptors

    def shut_down(self, peers: Iterable[Peer]) -> None:
        """Shuts down connections that the last scan has found."""
        for peer in peers:
            with _connection(self._descriptors.get(peer, -1)) as connection:
                if connection is not None and _peer_of(connection) == peer:  # the descriptor is not another's now
                    shut_down_quietly(connection)

    def _client_of(self, descriptor: int) -> Peer | None:
        with _connection(descriptor) as connection:
            if connection is not None and connection.getsockname()[1] == self._local_port:
                return _peer_of(connection)
        return None


def shut_down_quietly(connection: socket.socket) -> None:
    """Shuts a connection down in both directions; does nothing if its client has just left."""
    with contextlib.suppress(OSError):  # the client has just left
        connection.shutdown(socket.SHUT_RDWR)


def _peer_of(connection: socket.socket) -> Peer:
    host, port = connection.getpeername()[:2]
    return str(_plain_address(host)), port


def _connections() -> Iterator[socket.socket]:
    """Yields this process' TCP connections; each is valid until the next."""
    for name in os.listdir(OPEN_FILES):  # noqa: PTH208  # names are all that is needed
        with _connection(int(name)) as connection:
            if connection is not None:
                yield connection


@contextlib.contextmanager
def _connection(descriptor: int) -> Iterator[socket.socket | None]:
    """Duplicates a TCP connection; None if the descriptor is something else, or its owner closes it meanwhile."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        duplicate = _duplicate(descriptor)
        if duplicate is not None:
            stack.enter_context(duplicate)
        yield duplicate


def _duplicate(descriptor: int) -> socket.socket | None:
    try:
        duplicate = os.dup(descriptor)
    except OSError:
        return None
    if not stat.S_ISSOCK(os.fstat(duplicate).st_mode):
        os.close(duplicate)
        return None
    connection = socket.socket(fileno=duplicate)
    try:
        if connection.family in {socket.AF_INET, socket.AF_INET6} and connection.type == socket.SOCK_STREAM:
            connection.getpeername()  # raises if it listens
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _plain_address(host: str) -> IPv4Address | IPv6Address:
    """Parses an address; gRPC's sockets have IPv4 peers as IPv6 addresses."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def reachable(host: str) -> str:
    """Returns the host, as in a URL, at which a client on this machine reaches a listener on `host`.

    >>> reachable("0.0.0.0"), reachable("::"), reachable("::1"), reachable("localhost")
    ('127.0.0.1', '[::1]', '[::1]', 'localhost')
    """
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound here
    return f"[{address}]" if ":" in address else address


def local_url(host: str, port: int, *, tls: bool) -> str:
    """Returns the URL at which a client on this machine reaches an HTTP server that listens on `host`."""
    return f"{'https' if tls else 'http'}://{reachable(host)}:{port}"
